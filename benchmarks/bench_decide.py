"""This module times decisions, text in to decision out, on one thread: one at a time and in batches.

Each router is fitted on 73 % of a table's queries (15,000 stored queries on routerdc7) and deployed with the
policy `best`; the prompts are those of the rest whose length is nearest to 80 tokens of four characters.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import record
from turnout.core import Goal, OutcomeTable, Query
from turnout.core.contracts import Router
from turnout.core.scoring import rank, score
from turnout.features import TextEmbedder
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter, KNNRouter, RidgeRouter

NAMES = ("routerdc7", "llmrouter", "lookahead", "zeroeval", "routellm_pair")
SEED = 0
PROMPT_CHARS = 320
NUM_PROMPTS = 1_000
BATCH = 256
NUM_BATCHES = 20


def pick_prompts(queries: Sequence[Query]) -> list[Query]:
    """Return the queries whose texts are nearest to the wanted length."""
    return sorted(queries, key=lambda query: abs(len(query.words) - PROMPT_CHARS))[:NUM_PROMPTS]


def time_single(decide: Callable[[list[Query]], object], prompts: Sequence[Query]) -> dict[str, float]:
    """Return quantiles of the time of one decision in milliseconds; every prompt is new but the warm-up."""
    for query in prompts[:20]:
        decide([query])
    taken_ms = []
    for query in prompts[20:]:
        started = time.perf_counter()
        decide([query])
        taken_ms.append((time.perf_counter() - started) * 1e3)
    return {f"p{q}_ms": float(np.percentile(taken_ms, q)) for q in (1, 50, 95, 99)}


def time_batches(decide: Callable[[list[Query]], object], queries: Sequence[Query]) -> dict[str, float]:
    """Return decisions per second in batches: the median and the best batch."""
    per_s = []
    for number in range(NUM_BATCHES):
        batch = [queries[(number * BATCH + row) % len(queries)] for row in range(BATCH)]
        started = time.perf_counter()
        decide(batch)
        per_s.append(BATCH / (time.perf_counter() - started))
    return {"median_per_s": float(np.median(per_s)), "best_per_s": float(max(per_s))}


def estimate_and_rank(router: Router) -> Callable[[list[Query]], object]:
    """Return the shortest way from text to a ranking, without the deployment's reasons and guards."""

    def decide(queries: list[Query]) -> object:
        estimate = router.estimate(queries)
        cost_usd_QM = estimate.cost_usd_QM
        return rank(
            score(estimate.quality_QM, cost_usd_QM, 0.0), estimate.allowed_QM, cost_usd_QM, estimate.names
        )

    return decide


def measure(table: OutcomeTable) -> dict[str, object]:
    """Return the times of both routers on one table."""
    parts = table.split_by_query({"train": 0.73, "test": 0.27}, seed=SEED)
    embedder = TextEmbedder().fit(parts["train"].queries)
    prompts, every = pick_prompts(parts["test"].queries), parts["test"].queries
    routers: dict[str, Router] = {
        "ridge": RidgeRouter(embedder=embedder),
        "knn": KNNRouter(embedder=embedder),
        "knn_exact": KNNRouter(embedder=embedder, search="exact"),
    }
    fallback = BestSingleRouter().fit(parts["train"])
    found: dict[str, object] = {
        "fingerprint": table.fingerprint,
        "stored_queries": len(parts["train"].queries),
        "candidates": len(table.candidates),
        "prompt_chars_median": float(np.median([len(query.words) for query in prompts])),
    }
    for name, router in routers.items():
        router.fit(parts["train"])
        deployment = Deployment(router=router, fallback=fallback, policy=Best(), goal=Goal())
        for way, decide in (("deployment", deployment.decide), ("estimate", estimate_and_rank(router))):
            found[f"{name}/{way}"] = {
                "single": time_single(decide, prompts),
                f"batch_{BATCH}": time_batches(decide, every),
            }
    return found


def main(only: list[str]) -> None:
    """Write `decide.json`."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("error: one thread is timed; run with OMP_NUM_THREADS=1")
    result: dict[str, object] = {"load_average_before": list(os.getloadavg())}
    for name, table in record.tables(*NAMES):
        if only and name not in only:
            continue
        found = measure(table)
        result[name] = found
        print(name, found, flush=True)
    result["load_average_after"] = list(os.getloadavg())
    print(record.write("decide", result, seed=SEED).name)


if __name__ == "__main__":
    main(sys.argv[1:])
