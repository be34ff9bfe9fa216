"""This module times a full report: 50 prices, 1,000 resamples, 15,000 queries x 10 candidates.

Timed is `evaluate` whole: the run's sweep and its chosen point, a kNN run, all baselines, all intervals and
all numbers of the curve. The matrix product with the resamples is timed by itself as well, and so is the
search for near-same texts, which `evaluate` does when it is given a training table.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks import record
from turnout.core import Candidate, Decisions, OutcomeTable, Query, decisions_for
from turnout.evaluation import Report, Run, evaluate, near_duplicates
from turnout.evaluation.bootstrap import resampled_means
from turnout.evaluation.runs import RunLike

SEED = 0
NUM_QUERIES, NUM_CANDIDATES, NUM_PRICES, NUM_RESAMPLES = 15_000, 10, 50, 1000
REPEATS = 5


def make_table(rng: np.random.Generator) -> OutcomeTable:
    """Return a full table in which dearer candidates are better on average and not on every query."""
    skill_M = np.linspace(0.45, 0.8, NUM_CANDIDATES)
    hard_Q = rng.normal(0, 0.25, (NUM_QUERIES, 1))
    quality_QM = (rng.random((NUM_QUERIES, NUM_CANDIDATES)) < skill_M - hard_Q).astype(np.float64)
    cost_QM = 2e-5 * 2.0 ** np.arange(NUM_CANDIDATES) * rng.lognormal(0, 0.5, (NUM_QUERIES, 1))
    row, column = np.divmod(np.arange(NUM_QUERIES * NUM_CANDIDATES), NUM_CANDIDATES)
    words = rng.zipf(1.3, (NUM_QUERIES, 40)) % 30_000
    return OutcomeTable(
        queries=[
            Query(id=f"q{k}", text=" ".join(map(str, words[k])), task=f"t{k % 12}")
            for k in range(NUM_QUERIES)
        ],
        candidates=[Candidate(model=f"m{k}") for k in range(NUM_CANDIDATES)],
        query_index=row,
        candidate_index=column,
        quality=quality_QM.ravel(),
        cost_usd=cost_QM.ravel(),
    )


def sweep(table: OutcomeTable, rng: np.random.Generator, noise: float) -> list[Decisions]:
    """Return decisions at every price from a noisy sight of the truth."""
    seen_QM = table.quality_QM + rng.normal(0, noise, table.quality_QM.shape)
    prices = [0.0, *np.geomspace(1, 1e4, NUM_PRICES - 1).tolist()]
    return [
        decisions_for(table.candidates, np.argmax(seen_QM - p * table.cost_usd_QM, axis=1), price=p)
        for p in prices
    ]


def median_s(work: Callable[[], object]) -> dict[str, object]:
    """Return the median and all times of `REPEATS` calls after one that is not counted."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"median_s": statistics.median(times), "all_s": times}


def main() -> None:
    """Write benchmarks/results/curve.json."""
    rng = np.random.default_rng(SEED)
    table = make_table(rng)
    points = sweep(table, rng, 0.8)
    runs: dict[str, RunLike] = {
        "router": Run(chosen=points[20], sweep=points),
        "knn": sweep(table, rng, 1.2)[20],
    }
    reports: list[Report] = []

    def report() -> None:
        reports[:] = [evaluate(runs, table, seed=SEED, num_resamples=NUM_RESAMPLES)]

    values = rng.random((NUM_QUERIES, 2 * NUM_PRICES))
    texts = [query.text for query in table.queries]
    result = {
        "size": {
            "queries": NUM_QUERIES,
            "candidates": NUM_CANDIDATES,
            "prices": NUM_PRICES,
            "resamples": NUM_RESAMPLES,
        },
        "table": table.fingerprint,
        "evaluate": median_s(report),
        "resampled_means": median_s(
            lambda: resampled_means(values, num_resamples=NUM_RESAMPLES, rng=np.random.default_rng(SEED))
        ),
        "near_duplicates": median_s(lambda: near_duplicates(texts)),
        "numbers": {
            "quality": str(reports[0]["router"].quality),
            "saving": str(reports[0]["router"].saving),
            "aiq": str(reports[0]["router"].curve and reports[0]["router"].curve.aiq),
        },
    }
    path = record.write("curve", result, seed=SEED)
    for name in ("evaluate", "resampled_means", "near_duplicates"):
        print(f"{name}: {result[name]['median_s']:.2f} s")  # type: ignore[index]
    print(path.relative_to(record.ROOT))


if __name__ == "__main__":
    main()
