"""This module measures every router against the numbers that it owes, on 15,000 queries x 10 candidates.

    TURNOUT_DATA=<data> python -m benchmarks.bench_numbers [--folder DIR] [--methods A,B] [--write]

Fitting in seconds of the processor (one thread), so that what runs beside it does not count; the median of a
decision, text in, likewise, in the quietest window; the artifact in MB; a new candidate from 50 probe rows.
The table is procedural, on real texts. Each router has a process of its own; those that stand in the folder
are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.unseen_worlds import Regime, World, make_world
from turnout.core import Budget, Candidate, Goal, OutcomeTable
from turnout.core.artifact import save
from turnout.core.contracts import Router
from turnout.core.errors import TurnoutError
from turnout.core.rng import make_rng
from turnout.policies import Best, Deployment
from turnout.routers import registry
from turnout.training import train

SEED = 0
REGIME = Regime(name="15,000 x 10", source="metatool", num_queries=15_000, num_candidates=10, tasks="topic")
BOUNDS = {
    "fit_cpu_s": 60.0,
    "auto_fit_cpu_s": 180.0,
    "p50_ms": 1.0,
    "p50_neural_ms": 5.0,
    "artifact_mb": 20.0,
    "add_cpu_s": 1.0,
}
NUM_PROBES = 50
NUM_TIMED, PER_WINDOW = 400, 25


def measure(name: str) -> dict[str, Any]:
    """Return the numbers of one router; `auto` is judged as it is deployed."""
    world = make_world(REGIME, SEED)
    started, started_cpu = time.perf_counter(), time.process_time()
    deployment = train(world.train, Goal(), seed=SEED) if name == "auto" else None
    router = deployment.router if deployment else registry.get(name)().fit(world.train)
    found: dict[str, Any] = {
        "fit_cpu_s": time.process_time() - started_cpu,
        "fit_s": time.perf_counter() - started,
        **_decisions(deployment or router, world.test),
        "is_neural": ".neural." in type(router).__module__,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(save(deployment or router, folder))
        found["artifact_mb"] = sum(part.stat().st_size for part in path.iterdir()) / 1e6
    return {**found, **_added(deployment or router, world)}


def _decisions(served: Router | Deployment, test: OutcomeTable) -> dict[str, float]:
    """Return the median milliseconds of a decision: of all, and of the quietest window of queries.

    What runs beside takes no seconds of this process, but it takes its cache: the quietest window is closest
    to a machine of one's own. No query comes twice, so that none is remembered.
    """
    taken, rng = [], make_rng(SEED, "numbers")
    for query in test.queries[:NUM_TIMED]:
        started = time.process_time()
        if isinstance(served, Deployment):
            served.decide([query], goal=Goal())
        else:
            Best().decide(served.estimate([query]), Budget(), rng)
        taken.append(time.process_time() - started)
    windows = np.array(taken).reshape(-1, PER_WINDOW)
    return {
        "p50_ms": float(np.median(windows, axis=1).min() * 1e3),
        "p50_all_ms": float(np.median(windows) * 1e3),
    }


def _added(served: Router | Deployment, world: World) -> dict[str, Any]:
    """Return the seconds of the processor that a newcomer takes, or why it is not taken.

    A deployment compares the newcomer with the others on the same queries, so its probe holds them as well.
    """
    newcomer = Candidate(model="newcomer")
    probes = world.test.where(np.arange(len(world.test.queries)) < NUM_PROBES)
    known = list(probes.candidates) if isinstance(served, Deployment) else []
    rows = np.flatnonzero(probes.candidate_index == 0)
    kept = np.arange(probes.num_rows) if known else rows[:0]
    taken = np.concatenate([kept, rows])
    table = OutcomeTable(
        queries=probes.queries,
        candidates=[*known, newcomer],
        query_index=probes.query_index[taken],
        candidate_index=np.concatenate([probes.candidate_index[kept], np.full(rows.size, len(known))]),
        quality=probes.quality[taken],
        cost_usd=probes.cost_usd[taken],
    )
    started = time.process_time()
    try:
        served.add_candidate(newcomer, table)
    except TurnoutError as error:
        return {"add_cpu_s": None, "add_refused": str(error)}
    return {"add_cpu_s": time.process_time() - started}


def broken(name: str, found: dict[str, Any]) -> list[str]:
    """Return which bounds a router breaks."""
    limits = {
        "fit_cpu_s": BOUNDS["auto_fit_cpu_s" if name == "auto" else "fit_cpu_s"],
        "p50_ms": BOUNDS["p50_neural_ms" if found["is_neural"] else "p50_ms"],
        "artifact_mb": BOUNDS["artifact_mb"],
        "add_cpu_s": BOUNDS["add_cpu_s"],
    }
    return [key for key, limit in limits.items() if found[key] is not None and found[key] >= limit]


def main() -> None:
    """Measure what is missing in the folder, or write `numbers.json` from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--methods", help="some of the routers (default: auto and all)")
    parser.add_argument("--one", help="measure one in this process and print it")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    names = [] if options.write else options.methods.split(",") if options.methods else ["auto", *registry]
    for name in names:
        path = options.folder / f"{name}.json"
        if path.exists():
            continue
        command = [
            sys.executable,
            "-m",
            "benchmarks.bench_numbers",
            "--folder",
            str(options.folder),
            "--one",
            name,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        found = json.loads(lines[-1]) if lines else {"error": (done.stderr.splitlines() or ["?"])[-1]}
        path.write_text(json.dumps({"commit": record.commit(), **found}), encoding="utf-8")
        print(name, found, flush=True)
    cells = {path.stem: json.loads(path.read_text()) for path in sorted(options.folder.glob("*.json"))}
    broke = {
        name: found for name, cell in cells.items() if "error" not in cell and (found := broken(name, cell))
    }
    result = {
        "fingerprint": make_world(REGIME, SEED).train.fingerprint if options.write else None,
        "queries": REGIME.num_queries,
        "candidates": 10,
        "bounds": BOUNDS,
        "routers": cells,
        "broken": broke,
    }
    print(broke)
    if options.write:
        print(record.write("numbers", result, seed=SEED).name)


if __name__ == "__main__":
    main()
