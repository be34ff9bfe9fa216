"""This module measures teams of experts (S173): three that suit the query, next to one, to all and to chance.

On reason18, which records what everybody answered, each held-out query is put to a team and the most frequent
answer is taken. The table is cut once, 70/30; profiles come from the training part, as does the best single
model and the fixed team of the three best. Intervals resample held-out queries, 95 % each.

    python -m benchmarks.bench_recruit
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks import record
from turnout.core import OutcomeTable
from turnout.core.contracts import Router
from turnout.core.outcomes import Floats
from turnout.core.rng import make_rng
from turnout.datasets import load
from turnout.evaluation import dense_part
from turnout.evaluation.bootstrap import resampled_means
from turnout.routers import BestSingleRouter, KNNRouter, SkillsRouter, UniformRouter
from turnout.sequential import Bounds, FixedOrder, Recruit, ReplayEnvironment, Sequencer, run
from turnout.training.study import train_and_test

TABLE, SEED, K = "reason18", 0, 3


def play(test: OutcomeTable, player: Sequencer) -> tuple[Floats, Floats, float]:
    """Return quality and USD of every held-out query, and the number of distinct models in use."""
    world, bounds = ReplayEnvironment(test, independent=True), Bounds(calls=len(test.candidates))
    done = [run(world, player, query, bounds=bounds, seed=seed) for seed, query in enumerate(test.queries)]
    used = {seen.call.candidate for outcome in done for seen in outcome.trace.observed}
    quality_Q = np.array([0.0 if np.isnan(outcome.quality) else outcome.quality for outcome in done])
    return quality_Q, np.array([outcome.usd for outcome in done]), len(used)


def players(train: OutcomeTable) -> Mapping[str, Sequencer]:
    """Return who plays."""
    means = BestSingleRouter().fit(train)
    order = np.argsort(-means.estimate(train.queries[:1]).quality_QM[0], kind="stable")
    fitted: dict[str, Router] = {
        "skills": SkillsRouter().fit(train),
        "knn": KNNRouter().fit(train),
        "uniform": UniformRouter().fit(train),
    }
    return {
        "best single model": FixedOrder(order=(train.names[order[0]],)),
        "three best everywhere": Recruit(router=means, k=K, is_random=False),
        "three drawn by chance": Recruit(router=fitted["uniform"], k=K),
        "three by skills, drawn": Recruit(router=fitted["skills"], k=K),
        "three by skills, most suitable": Recruit(router=fitted["skills"], k=K, is_random=False),
        "three by kNN": Recruit(router=fitted["knn"], k=K, is_random=False),
    }


def main() -> None:
    """Play everybody and write recruit.json."""
    table = load(TABLE)
    train, test = train_and_test(dense_part(table), seed=SEED)
    found = {name: play(test, player) for name, player in players(train).items()}
    quality_QP = np.stack([quality_Q for quality_Q, _, _ in found.values()], axis=1)
    first_Q1 = quality_QP[:, :1]
    values_QC = np.concatenate([quality_QP, quality_QP - first_Q1], axis=1)
    means_BC = resampled_means(values_QC, num_resamples=2_000, rng=make_rng(SEED, "recruit"))
    low_C, high_C = np.quantile(means_BC, [0.025, 0.975], axis=0)
    rows = {}
    for at, (name, (_, usd_Q, num_used)) in enumerate(found.items()):
        gain = at + len(found)
        rows[name] = {
            "quality": {"value": values_QC[:, at].mean(), "low": low_C[at], "high": high_C[at]},
            "gain": {"value": values_QC[:, gain].mean(), "low": low_C[gain], "high": high_C[gain]},
            "usd_per_1k": 1_000.0 * float(np.mean(usd_Q)),
            "models": num_used,
        }
    sizes = {"train": len(train.queries), "test": len(test.queries), "k": K}
    result = {"table": TABLE, "fingerprint": table.fingerprint, **sizes, "rows": rows}
    print(record.write("recruit", result, seed=SEED))


if __name__ == "__main__":
    main()
