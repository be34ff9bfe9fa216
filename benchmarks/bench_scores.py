"""This module measures what other benchmarks ask of a router: quality per energy, board scores, other inputs.

    TURNOUT_DATA=<data> python -m benchmarks.bench_scores --folder DIR [--pieces A,B] [--write]

S40, energy: greenserv_bandit records the normalised energy of 16 models' answers, on 42 % of the cells; the
others are estimated, as in `turnout bench routers` on a table with holes. Energy stands where money stands.
S55 and S59: the rank score and the score of RouterArena's board, of every priced set. S55, other inputs: the
vectors of the texts are handed over as numbers in tags, as those of an image would be; no table at hand has
images, so that the contract is measured, and not what a picture says.
A row that is not marked *(told)* is asked without the tasks of the held-out queries, as in
`turnout bench routers`. What stands in the folder is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.bench_reports import prepare as without_hidden_costs
from turnout.core import OutcomeTable, Query
from turnout.core.contracts import Router
from turnout.core.rng import make_rng
from turnout.evaluation import Report, Run, Value, evaluate
from turnout.evaluation.arena import arena_score, rank_score
from turnout.evaluation.energy import COLUMN
from turnout.features import ColumnsEmbedder
from turnout.policies import Best, price_grid, sweep
from turnout.routers import GroupMeanRouter, KNNRouter, RidgeRouter
from turnout.training.bench.contestants import fit_contestant
from turnout.training.bench.prepared import Prepared, prepare, read_prepared
from turnout.training.bench.told import asked

SEED = 0
METHODS = ("auto", "knn", "ridge", "group_mean", "blend")
PRICED = ("llmrouter", "zeroeval", "lookahead", "alpacaeval1", "alpacaeval2", "routellm_pair")
HANDED = ("open9", "llmrouter")
ENERGY, MIXED = "greenserv_bandit", "cnn_dailymail"
"""The table with energy, and its task whose quality holds energy already."""


def judged(given: Prepared, methods: tuple[str, ...] = METHODS) -> Report:
    """Return the report of some methods, each with its choices for the best quality and its curve."""
    runs = {}
    for name in methods:
        contestant, queries = fit_contestant(name, given, seed=SEED), asked(given.test.queries, name)
        estimate = contestant.estimate(queries)
        points = sweep(Best(), estimate, price_grid(estimate, num=50), rng=make_rng(SEED, "scores"))
        runs[name] = Run(chosen=contestant.decide(queries), sweep=points, estimate=estimate)
    return evaluate(runs, given.test, train=given.train, seed=SEED, leakage="skip", cells=given.cells)


def energy(name: str, table: OutcomeTable, folder: Path) -> dict[str, Any]:
    """Return quality and energy of the choices of each method, and what equal quality takes."""
    table = table.where(np.array(table.tasks) != MIXED)
    used_N = [np.nan if value is None else float(value) for value in table.extras["energy_norm"]]
    table = table.with_extras({COLUMN: used_N}).with_costs(np.array(used_N))
    given = read_prepared(prepare(name, table, folder, seed=SEED))
    report = judged(given)
    return {
        "fingerprint": table.fingerprint,
        "queries": len(given.test.queries),
        "candidates": len(given.test.candidates),
        "observed": float(given.test.observed_QM.mean()),
        "best_single": report.best_single,
        "rows": {row.name: _energy_row(report, row.name) for row in report.rows},
    }


def _energy_row(report: Report, name: str) -> dict[str, Any]:
    row = report[name]
    assert row.usd_per_1k is not None
    used = row.usd_per_1k.value or np.nan
    return {
        "quality": _plain(row.quality),
        "energy": used / 1e3,
        "per_energy": (row.quality.value or np.nan) / (used / 1e3),
        "saving": None if row.saving is None else _plain(row.saving.share),
    }


def scores(name: str, table: OutcomeTable, folder: Path) -> dict[str, Any]:
    """Return the two board scores of each row at its own point."""
    given = read_prepared(prepare(name, without_hidden_costs(table), folder, seed=SEED))
    report = judged(given)
    costs = [single.usd_per_1k.value or 0.0 for single in report.singles if single.usd_per_1k is not None]
    low, high = min(cost for cost in costs if cost > 0.0), max(costs)
    rows = {}
    for row in report.rows:
        if row.usd_per_1k is None:
            continue
        quality, usd = row.quality.value or 0.0, row.usd_per_1k.value or 0.0
        rows[row.name] = {
            "quality": quality,
            "usd_per_1k": usd,
            "arena": float(arena_score(quality, usd)),
            "rank": float(rank_score(quality, usd / 1e3, low_usd=low / 1e3, high_usd=high / 1e3)),
        }
    return {"low_usd_per_1k": low, "high_usd_per_1k": high, "rows": rows}


def handed(name: str, table: OutcomeTable, folder: Path) -> dict[str, Any]:
    """Return the quality of routers on text, and on the same vectors as numbers in tags, without a text."""
    given = read_prepared(prepare(name, without_hidden_costs(table), folder, seed=SEED))
    found: dict[str, Any] = {}
    makers: dict[str, Callable[..., Router]] = {"ridge": RidgeRouter, "knn": KNNRouter}
    parts = {
        "text": (given.train, given.test),
        "numbers": tuple(map(_Tagged(given), (given.train, given.test))),
    }
    for kind, (train, test) in parts.items():
        for router, make in makers.items():
            embedder = given.embedder if kind == "text" else ColumnsEmbedder(names=("seen",))
            estimate = make(embedder=embedder).fit(train).estimate(test.queries)
            found[f"{router}, {kind}"] = float(_chosen(estimate.quality_QM, test))
    known = GroupMeanRouter().fit(given.train).estimate([replace(q, task=None) for q in given.test.queries])
    found["neither"] = float(_chosen(known.quality_QM, given.test))
    return found


class _Tagged:
    """Puts the vectors of a table's texts into tags, and takes texts and tasks away."""

    def __init__(self, given: Prepared) -> None:
        self._given = given

    def __call__(self, table: OutcomeTable) -> OutcomeTable:
        return OutcomeTable(
            queries=list(self._queries(table)),
            candidates=table.candidates,
            query_index=table.query_index,
            candidate_index=table.candidate_index,
            quality=table.quality,
            cost_usd=table.cost_usd,
            sample=table.sample,
        )

    def _queries(self, table: OutcomeTable) -> Iterator[Query]:
        x_QF = np.asarray(self._given.embedder.embed(table.queries))
        for query, x_F in zip(table.queries, x_QF, strict=True):
            yield Query(id=query.id, text=None, tags={"seen": " ".join(f"{value:.6g}" for value in x_F)})


def _chosen(quality_QM: np.ndarray, test: OutcomeTable) -> float:
    order = np.arange(len(test.queries))
    return float(test.quality_QM[order, quality_QM.argmax(axis=1)].mean())


def _plain(value: Value) -> dict[str, float | None]:
    return {"value": value.value, "low": value.low, "high": value.high}


def pieces(folder: Path) -> dict[str, Callable[[], dict[str, Any] | None]]:
    """Return each piece of the result by the name of its file; its table is read when it is run."""
    made = {"energy": (energy, ENERGY)}
    made |= {f"boards--{name}": (scores, name) for name in (*record.SHIPPED, *PRICED)}
    made |= {f"handed--{name}": (handed, name) for name in HANDED}
    return {piece: partial(_of_table, run, name, folder) for piece, (run, name) in made.items()}


def _of_table(
    run: Callable[[str, OutcomeTable, Path], dict[str, Any]], name: str, folder: Path
) -> dict[str, Any] | None:
    """Return a piece of a table; None where the table is not there."""
    return next((run(name, table, folder) for _, table in record.tables(name, only=[name])), None)


def main() -> None:
    """Measure the pieces that are missing in the folder, or write `scores.json` from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pieces", help="some of them, such as energy,boards--open9 (default: all)")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.write:
        found = {path.stem: json.loads(path.read_text()) for path in sorted(options.folder.glob("*.json"))}
        print(record.write("scores", {"pieces": found}, seed=SEED).name)
        return
    with tempfile.TemporaryDirectory() as place:
        for name, run in pieces(Path(place)).items():
            path = options.folder / f"{name}.json"
            if path.exists() or (options.pieces and name not in options.pieces.split(",")):
                continue
            if (piece := run()) is not None:
                path.write_text(json.dumps({"commit": record.commit(), **piece}), encoding="utf-8")
                print(name, piece, flush=True)


if __name__ == "__main__":
    main()
