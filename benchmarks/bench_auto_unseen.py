"""This module judges `auto` on tables it has never seen: procedural ones, and pieces of recorded ones.

    TURNOUT_DATA=<data> python -m benchmarks.bench_auto_unseen [--folder DIR] [--only WORDS]

Every regime of `unseen_regimes.REPORT` is drawn once. Intervals are of one family: with C comparisons in
all, each is a normal interval of paired differences of recorded quality over held-out queries, of confidence
1 - 0.05 / C. What a choice is truly worth is known besides where a world is procedural; those values have
no noise, and their mean over regimes gets an interval over regimes. Cells that stand in the folder are not
run again.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.unseen_picture import draw
from benchmarks.unseen_regimes import REPORT, REPORT_SEED
from benchmarks.unseen_worlds import Regime, World, make_world
from turnout.core import Goal, OutcomeTable
from turnout.core.contracts import Router
from turnout.core.outcomes import Ints
from turnout.datasets import load
from turnout.evaluation.baselines import best_single
from turnout.features import TextEmbedder
from turnout.policies import Deployment
from turnout.policies.risk import student_quantile
from turnout.routers import GroupMeanRouter, KNNRouter
from turnout.training import study, train

RIVALS = {"best_single": "auto", "knn": "auto", "group_mean": "auto_given"}
"""Rival -> which `auto` is held against it; the last where tasks are told."""
NUM_RESAMPLES = 300


def told(regime: Regime) -> bool:
    """Return whether requests of the regime may name their task."""
    return regime.tasks != "none"


def num_comparisons() -> int:
    """Return the size of the family: two rivals everywhere, and the third where tasks are told."""
    return sum(3 if told(regime) else 2 for regime in REPORT)


def choices(router: Router, test: OutcomeTable) -> Ints:
    """Return the column of the highest estimate for every query."""
    quality_QM = router.estimate(test.queries).quality_QM
    found: Ints = np.nan_to_num(quality_QM, nan=-1.0).argmax(axis=1)
    return found


def decided(deployment: Deployment, test: OutcomeTable, goal: Goal) -> Ints:
    """Return the column that a deployment calls for every query."""
    order = {name: column for column, name in enumerate(test.names)}
    names = deployment.decide(test.queries, goal=goal).names_Q
    return np.array([order[name] for name in names if name is not None], np.int64)


def measure(regime: Regime) -> dict[str, Any]:
    """Return what `auto` and its rivals choose in one regime, and what that is worth."""
    table = load(regime.source) if regime.is_recorded else None
    world = make_world(regime, REPORT_SEED, table)
    goal = Goal(quality_floor=1.0) if world.train.has_costs else Goal()
    started, started_cpu = time.perf_counter(), time.process_time()
    deployment = train(world.train, goal, seed=0)
    found: dict[str, Any] = {
        "regime": {key: value for key, value in asdict(regime).items() if key != "name"},
        "train": len(world.train.queries),
        "test": len(world.test.queries),
        "candidates": len(world.train.candidates),
        "rows": world.train.num_rows,
        "fingerprint": world.train.fingerprint,
        "fit_s": time.perf_counter() - started,
        "fit_cpu_s": time.process_time() - started_cpu,
        "is_open": deployment.plan(Goal()).is_open,
    }
    given = train(world.train, goal, tasks_given=True, seed=0) if told(regime) else None
    chosen = _everybody(world, deployment, given)
    single_Q = chosen["best_single"]
    found["diverted"] = float((chosen["auto"] != single_Q).mean())
    if given is not None:
        found["is_open_given"] = given.plan(Goal()).is_open
        found["diverted_given"] = float((chosen["auto_given"] != single_Q).mean())
    found["quality"], found["against"] = _worth(world, chosen)
    found["oracle"] = float(world.truth_QM.max(axis=1).mean())
    if world.train.has_costs:
        found["money"] = _money(world, given or deployment, goal)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def _everybody(world: World, deployment: Deployment, given: Deployment | None) -> dict[str, Ints]:
    text = TextEmbedder().fit(world.train.queries)
    single = world.train.names.index(best_single(world.train))
    chosen = {
        "auto": decided(deployment, world.test, Goal()),
        "best_single": np.full(len(world.test.queries), single),
        "knn": choices(KNNRouter(embedder=text).fit(world.train), world.test),
    }
    if given is not None:
        chosen["auto_given"] = decided(given, world.test, Goal())
        chosen["group_mean"] = choices(GroupMeanRouter().fit(world.train), world.test)
    return chosen


def _worth(world: World, chosen: dict[str, Ints]) -> tuple[dict[str, float], dict[str, Any]]:
    rows = np.arange(len(world.test.queries))
    z = NormalDist().inv_cdf(1.0 - 0.05 / num_comparisons() / 2.0)
    quality = {name: float(world.truth_QM[rows, column_Q].mean()) for name, column_Q in chosen.items()}
    recorded = {name: world.test.quality_QM[rows, column_Q] for name, column_Q in chosen.items()}
    against = {}
    for rival, mine in RIVALS.items():
        if rival in chosen:
            gap_Q = recorded[mine] - recorded[rival]
            error = z * float(gap_Q.std()) / len(rows) ** 0.5
            against[rival] = {
                "value": float(gap_Q.mean()),
                "low": float(gap_Q.mean()) - error,
                "high": float(gap_Q.mean()) + error,
                "true": quality[mine] - quality[rival],
            }
    return quality, against


def _money(world: World, deployment: Deployment, goal: Goal) -> dict[str, Any]:
    """Return the saving at the best single model's quality, and how a promise of equal quality was kept."""
    rows, column_Q = np.arange(len(world.test.queries)), decided(deployment, world.test, goal)
    single = world.train.names.index(best_single(world.train))
    plan, usd_QM = deployment.plan(), world.test.cost_usd_QM
    report = study(deployment, world.train, world.test, num_resamples=NUM_RESAMPLES, leakage="skip")
    savings = {row["name"]: row["saving"] for row in report.to_dict()["rows"]}
    kept = {name: savings[name] for name in ("router", "knn", "group mean") if savings.get(name)}
    return {
        "saving": {name: saving["share"] for name, saving in kept.items()},
        "promised": bool(plan.is_kept and plan.is_open),
        "quality_beyond_single": float((world.truth_QM[rows, column_Q] - world.truth_QM[:, single]).mean()),
        "cost_share": float(np.nanmean(usd_QM[rows, column_Q]) / np.nanmean(usd_QM[:, single])),
    }


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Return how often `auto` is below a rival, and the mean over regimes of what it is truly worth more."""
    found: dict[str, Any] = {}
    for rival in RIVALS:
        against = {name: cell["against"][rival] for name, cell in cells.items() if rival in cell["against"]}
        true = np.array([value["true"] for value in against.values()])
        width = student_quantile(0.975, true.size - 1) * true.std(ddof=1) / true.size**0.5
        found[rival] = {
            "regimes": len(against),
            "below": sorted(name for name, value in against.items() if value["high"] < 0.0),
            "above": sorted(name for name, value in against.items() if value["low"] > 0.0),
            "mean": {
                "value": float(true.mean()),
                "low": float(true.mean() - width),
                "high": float(true.mean() + width),
            },
        }
    promised = [cell["money"] for cell in cells.values() if cell.get("money", {}).get("promised")]
    found["promises"] = {
        "made": len(promised),
        "missed": sum(money["quality_beyond_single"] < -1e-9 for money in promised),
        "worst": min((money["quality_beyond_single"] for money in promised), default=0.0),
    }
    found["open"] = sum(cell["is_open"] for cell in cells.values())
    return found


def main() -> None:
    """Write `auto_unseen.json` and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where cells are kept (default: a new one)")
    parser.add_argument("--only", default="", help="regimes whose names hold these words")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    cells: dict[str, Any] = {}
    for number, regime in enumerate(REPORT):
        if options.only not in regime.name:
            continue
        path = folder / f"{number:02d}.json"
        if options.write and not path.exists():
            continue
        if not path.exists():
            found = {"commit": record.commit(), **measure(regime)}
            path.write_text(json.dumps(found), encoding="utf-8")
        cells[regime.name] = cell = json.loads(path.read_text(encoding="utf-8"))
        gaps = {rival: round(100 * value["true"], 2) for rival, value in cell["against"].items()}
        print(f"{number + 1}/{len(REPORT)} {regime.name}: {gaps}, {cell['fit_s']:.0f} s", flush=True)
    result = {
        "comparisons": num_comparisons(),
        "confidence": 1.0 - 0.05 / num_comparisons(),
        "summary": summary(cells),
        "regimes": cells,
    }
    print(json.dumps(result["summary"], indent=1))
    if not options.only:
        print(record.write("auto_unseen", result, seed=REPORT_SEED).name)
        print(draw(result, record.RESULTS / "auto_unseen.png").name)


if __name__ == "__main__":
    main()
