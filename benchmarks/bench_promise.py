"""This module asks whether a missed promise is noise: the same promise on many cuts of the training part.

    python -m benchmarks.bench_promise --folder DIR [--sets open9] [--cuts 20] [--write]

The deployment of open9 that promises the best single model's quality lies below it on the reported split.
Nothing is learned or chosen there: its training part alone is cut 95/5 by other seeds, near-same texts kept
together, and on each cut a deployment is trained and held to its word on the rest. A cut that stands in the
folder is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.bench_reports import parts, prepare
from turnout.core import Goal, OutcomeTable
from turnout.core.outcomes import Floats
from turnout.evaluation import split
from turnout.evaluation.baselines import best_single
from turnout.training import train

SEED, NUM_RESAMPLES = 0, 10_000
SHARE = 0.95
"""Of the training part that is learned from: with much less the guard does not open at all."""


def one(table: OutcomeTable, seed: int) -> dict[str, Any]:
    """Train on a part of a table and return what the deployment gained on each query of the rest."""
    cut = split(
        table.with_splits([None] * len(table.queries)), {"train": SHARE, "test": 1.0 - SHARE}, seed=seed
    )
    learned, rest = cut["train"], cut["test"]
    deployment = train(learned, Goal(quality_floor=1.0), seed=seed)
    gain_Q, share = _gains(deployment.decide(rest.queries).names_Q, learned, rest)
    return {
        "seed": seed,
        "ids": [query.id for query in rest.queries],
        "tasks": list(rest.tasks),
        "gains": gain_Q.tolist(),
        "spend": share,
        "is_open": deployment.plan().is_open,
        "text": deployment.plan().text,
    }


def _gains(
    chosen_Q: tuple[str | None, ...], learned: OutcomeTable, rest: OutcomeTable
) -> tuple[Floats, float]:
    rows, single = np.arange(len(chosen_Q)), rest.names.index(best_single(learned))
    column_Q = np.array([rest.names.index(name or "") for name in chosen_Q])
    usd_Q, base_Q = rest.cost_usd_QM[rows, column_Q], rest.cost_usd_QM[:, single]
    return rest.quality_QM[rows, column_Q] - rest.quality_QM[:, single], float(usd_Q.mean() / base_Q.mean())


def summarise(cuts: list[dict[str, Any]], tasks: Sequence[str | None]) -> dict[str, Any]:
    """Return how the cuts did, and their mean, with an interval over the queries, which recur in cuts.

    `tasks` are those of the reported queries: the mean is also told for their mix.
    """
    means = np.array([np.mean(cut["gains"]) for cut in cuts])
    errors = np.array([np.std(cut["gains"], ddof=1) / np.sqrt(len(cut["gains"])) for cut in cuts])
    by_query: dict[str, list[float]] = {}
    for cut in cuts:
        for name, gain in zip(cut["ids"], cut["gains"], strict=True):
            by_query.setdefault(name, []).append(gain)
    mean_Q = np.array([np.mean(gains) for gains in by_query.values()])
    task_of = {name: task for cut in cuts for name, task in zip(cut["ids"], cut["tasks"], strict=True)}
    here, there = Counter(task_of[name] for name in by_query), Counter(tasks)
    weight_Q = np.array([there[task_of[name]] / here[task_of[name]] for name in by_query])
    rng = np.random.default_rng(SEED)
    draws = [mean_Q[rng.integers(mean_Q.size, size=mean_Q.size)].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "cuts": len(cuts),
        "open": sum(cut["is_open"] for cut in cuts),
        "below": int((means < 0.0).sum()),
        "significantly_below": int((means + 1.96 * errors < 0.0).sum()),
        "mean": {"value": float(mean_Q.mean()), "low": float(low), "high": float(high)},
        "mean_of_reported_mix": float(weight_Q @ mean_Q / weight_Q.sum()),
        "least": float(means.min()),
        "largest": float(means.max()),
        "spend": float(np.mean([cut["spend"] for cut in cuts])),
        "queries": len(by_query),
    }


def main() -> None:
    """Run the cuts that are missing, or write `promise.json` from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sets", default="open9")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted, tasks = options.sets.split(","), dict[str, tuple[str | None, ...]]()
    prints: dict[str, str] = {}
    for name, table in record.tables(*wanted, only=wanted):
        learned, reported_part = parts(prepare(table))
        tasks[name], prints[name] = reported_part.tasks, learned.fingerprint
        for seed in () if options.write else range(1, options.cuts + 1):
            path = options.folder / f"{name}--{seed}.json"
            if not path.exists():
                found = {"commit": record.commit(), **one(learned, seed)}
                path.write_text(json.dumps(found), encoding="utf-8")
                print(name, seed, np.mean(found["gains"]), found["text"], flush=True)
    if options.write:
        sets: dict[str, Any] = {}
        for name in wanted:
            cuts = [json.loads(path.read_text()) for path in sorted(options.folder.glob(f"{name}--*.json"))]
            reported = json.loads((record.RESULTS / f"report_{name}.json").read_text())["result"]["report"]
            row = next(row for row in reported["rows"] if row["name"] == "router")
            sets[name] = {
                "fingerprint": prints[name],
                **summarise(cuts, tasks[name]),
                "commits": sorted({cut["commit"] for cut in cuts}),
                "reported": row["vs_best_single"],
                "reported_queries": reported["origin"]["num_scored"],
            }
        print(sets)
        print(record.write("promise", {"sets": sets}, seed=SEED).name)


if __name__ == "__main__":
    main()
