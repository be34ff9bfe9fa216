"""This module measures how far the judgement of a table with holes is from that of the full one.

    TURNOUT_DATA=<data> python -m benchmarks.bench_holes

Half of the outcomes of full tables are taken away, at random or so that the better candidates ran on hard
tasks and the others on easy ones. Routers learn from what is left, and `turnout bench routers` judges them
on it; the full table says how good their choices truly were.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from turnout.core import OutcomeTable
from turnout.core.outcomes import Floats
from turnout.core.rng import make_rng
from turnout.evaluation import evaluate
from turnout.training.bench.contestants import fit_contestant
from turnout.training.bench.prepared import prepare, read_prepared

SEED, ROUNDS = 0, 2
METHODS = ("best_single", "knn", "ridge", "group_mean", "uniform")
NAMES = ("llmrouter",)
KINDS = ("random", "by task")


def holed(table: OutcomeTable, kind: str, seed: int) -> OutcomeTable:
    """Return the table without half of its outcomes."""
    quality_QM, task_Q = table.quality_QM, np.array([task or "" for task in table.tasks])
    chance_QM = np.full(quality_QM.shape, 0.5)
    if kind == "by task":
        ease = {task: quality_QM[task_Q == task].mean() for task in set(task_Q.tolist())}
        is_hard_Q = np.array([ease[task] < np.median(list(ease.values())) for task in task_Q.tolist()])
        mean_M = quality_QM.mean(axis=0)
        chance_QM = np.where(is_hard_Q[:, None] == (mean_M > np.median(mean_M))[None, :], 0.75, 0.25)
    keep_QM = make_rng(seed, "holes", kind).random(quality_QM.shape) < chance_QM
    # Cut anew, so that every round holds out other queries.
    part = table.with_rows(keep_QM[table.query_index, table.candidate_index])
    return part.with_splits([None] * len(table.queries))


def judge(full: OutcomeTable, kind: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Return for each method what was estimated, what was observed, and what is true."""
    place = prepare("holed", holed(full, kind, seed), folder, seed=seed)
    given = read_prepared(place)
    row_of = {query.id: row for row, query in enumerate(full.queries)}
    columns = [full.names.index(name) for name in given.test.names]
    truth_QM: Floats = full.quality_QM[[row_of[query.id] for query in given.test.queries]][:, columns]
    rows, found = np.arange(len(truth_QM)), []
    for name in METHODS:
        decisions = fit_contestant(name, given, seed=seed).decide(given.test.queries)
        report = evaluate(
            {name: decisions}, given.test, train=given.train, seed=seed, leakage="skip", cells=given.cells
        )
        quality = report[name].quality
        column_Q = np.array([given.test.names.index(chosen or "") for chosen in decisions.names_Q])
        truth = float(truth_QM[rows, column_Q].mean())
        found.append(
            {
                "method": name,
                "true": truth,
                "estimated": {"value": quality.value, "low": quality.low, "high": quality.high},
                "observed": float(np.nanmean(given.test.quality_QM[rows, column_Q])),
                "covered": bool((quality.low or 0.0) <= truth <= (quality.high or 1.0)),
            }
        )
    assert given.cells is not None
    oracle = {"true": float(truth_QM.max(axis=1).mean())}
    oracle["estimated"] = float(given.cells.hindsight_QM.max(axis=1).mean())
    return [*found, {"method": "oracle", **oracle}]


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean errors in quality, and how often an interval covers the truth."""
    routers = [row for row in rows if row["method"] != "oracle"]
    oracles = [row["estimated"] - row["true"] for row in rows if row["method"] == "oracle"]
    return {
        "judgements": len(routers),
        "error": float(np.mean([abs(row["estimated"]["value"] - row["true"]) for row in routers])),
        "observed_error": float(np.mean([abs(row["observed"] - row["true"]) for row in routers])),
        "largest": float(max(abs(row["estimated"]["value"] - row["true"]) for row in routers)),
        "observed_largest": float(max(abs(row["observed"] - row["true"]) for row in routers)),
        "covered": float(np.mean([row["covered"] for row in routers])),
        "oracle_bias": float(np.mean(oracles)),
    }


def main() -> None:
    """Write `holes.json`."""
    found: dict[str, Any] = {}
    for name, table in record.tables(*NAMES):
        for kind in KINDS:
            rows: list[dict[str, Any]] = []
            for round_ in range(ROUNDS):
                with tempfile.TemporaryDirectory() as folder:
                    rows += judge(table, kind, SEED + round_, Path(folder))
            found[f"{name}, {kind}"] = {"fingerprint": table.fingerprint, **summarise(rows), "rows": rows}
            print(name, kind, summarise(rows), flush=True)
    print(record.write("holes", {"tables": found}, seed=SEED).name)


if __name__ == "__main__":
    main()
