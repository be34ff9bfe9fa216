"""This module times a full report: 50 prices, 1,000 resamples, 15,000 queries x 10 candidates.

Timed is `evaluate` whole: the run's sweep and its chosen point, a kNN run, all baselines, all intervals and
all numbers of the curve; on a synthetic table of that size, on the two shipped ones, and on others where
TURNOUT_DATA names a folder that has them. The matrix product with the resamples is timed by itself, and so
is the search for near-same texts, which `evaluate` does when it is given a training table. The runs are
noisy sights of the truth: what they reach says nothing about any router.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks import record
from turnout.core import Candidate, Decisions, OutcomeTable, Query, decisions_for
from turnout.evaluation import Run, dense_part, evaluate, near_duplicates
from turnout.evaluation.bootstrap import resampled_means
from turnout.evaluation.runs import RunLike

SEED = 0
NAMES = ("routellm_pair", "llmrouter", "lookahead", "zeroeval", "routerdc7")
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
    cost_QM = np.nan_to_num(table.cost_usd_QM)
    prices = [0.0, *np.geomspace(1, 1e4, NUM_PRICES - 1).tolist()]
    return [
        decisions_for(table.candidates, np.argmax(seen_QM - price * cost_QM, axis=1), price=price)
        for price in prices
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


def measure(table: OutcomeTable, rng: np.random.Generator) -> dict[str, object]:
    """Time the report of one table, and the search for near-same texts in it."""
    points = sweep(table, rng, 0.8)
    runs: dict[str, RunLike] = {
        "router": Run(chosen=points[20], sweep=points),
        "knn": sweep(table, rng, 1.2)[20],
    }
    texts = [query.text for query in table.queries]
    return {
        "fingerprint": table.fingerprint,
        "queries": len(table.queries),
        "candidates": len(table.candidates),
        "prices": NUM_PRICES,
        "resamples": NUM_RESAMPLES,
        "evaluate": median_s(lambda: evaluate(runs, table, seed=SEED, num_resamples=NUM_RESAMPLES)),
        "near_duplicates": median_s(lambda: near_duplicates(texts)),
    }


def main() -> None:
    """Write benchmarks/results/curve.json."""
    rng = np.random.default_rng(SEED)
    values = rng.random((NUM_QUERIES, 2 * NUM_PRICES))
    result: dict[str, object] = {"synthetic": measure(make_table(rng), rng)}
    result["resampled_means"] = median_s(
        lambda: resampled_means(values, num_resamples=NUM_RESAMPLES, rng=np.random.default_rng(SEED))
    )
    for name, table in record.tables(*NAMES):
        result[name] = measure(dense_part(table), rng)
    path = record.write("curve", result, seed=SEED)
    for name, part in result.items():
        timed = part.get("evaluate", part)  # type: ignore[attr-defined]
        print(f"{name}: {timed['median_s']:.2f} s")
    print(path.relative_to(record.ROOT))


if __name__ == "__main__":
    main()
