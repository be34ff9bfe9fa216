"""This module measures what `auto` needs on large tables: seconds, memory, and what it deploys.

    TURNOUT_DATA=<data> python -m benchmarks.bench_large --folder DIR [--sizes 15000x10,50000x80] [--write]

The tables are procedural, on real texts, full or half empty. Each has a process of its own, which may hold
`--max-gb` at most, so that a machine shared with others survives it. Seconds of the processor are of one
thread; what runs beside it lengthens the seconds of the clock. What stands in the folder is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.unseen_worlds import Regime, make_world
from turnout.core import Goal
from turnout.core.artifact import save
from turnout.evaluation.baselines import best_single
from turnout.training import train

SEED = 0
SIZES = (
    "500x2,500x2half,500x80,500x80half,500x10000,500x10000half,"
    "15000x10,50000x10,15000x80,50000x80,50000x80half"
)


def regime_of(size: str) -> Regime:
    """Return the world of a size such as `50000x80half`: queries, candidates, and whether half is missing."""
    queries, _, candidates = size.removesuffix("half").partition("x")
    return Regime(
        name=size,
        source="metatool",
        num_queries=int(queries),
        num_candidates=int(candidates),
        tasks="topic",
        fill=0.5 if size.endswith("half") else 1.0,
    )


def measure(size: str) -> dict[str, Any]:
    """Train `auto` on one table and say what it took."""
    world = make_world(regime_of(size), SEED)
    before_mb = _peak_mb()
    phases: list[tuple[str, float]] = []
    started, started_cpu = time.perf_counter(), time.process_time()

    def tell(phrase: str, done: int, total: int) -> None:
        phases.append((phrase, time.perf_counter() - started))
        print(f"{phases[-1][1]:7.1f} s  {done}/{total}  {phrase}", file=sys.stderr, flush=True)

    deployment = train(world.train, Goal(), seed=SEED, progress=tell)
    taken = {"fit_s": time.perf_counter() - started, "fit_cpu_s": time.process_time() - started_cpu}
    with tempfile.TemporaryDirectory() as folder:
        artifact_mb = sum(part.stat().st_size for part in Path(save(deployment, folder)).iterdir()) / 1e6
    choices = deployment.decide(world.test.queries, goal=Goal()).choice_Q
    order = range(len(choices))
    return {
        "fingerprint": world.train.fingerprint,
        "queries": len(world.train.queries),
        "candidates": len(world.train.candidates),
        "observed": float(world.train.observed_QM.mean()),
        **taken,
        "table_mb": before_mb,
        "peak_mb": _peak_mb(),
        "artifact_mb": artifact_mb,
        "router": type(deployment.router).__name__,
        "expected_quality": float(world.truth_QM[order, choices].mean()),
        "single_quality": float(world.truth_QM[:, world.train.names.index(best_single(world.train))].mean()),
        "best_single_quality": float(world.truth_QM.mean(axis=0).max()),
        "oracle_quality": float(world.truth_QM.max(axis=1).mean()),
        "load_average": os.getloadavg(),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure the sizes that are missing in the folder, or write `large.json` from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--max-gb", type=float, default=12.0)
    parser.add_argument("--one", help="measure one in this process and print it")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    if options.one:
        limit = int(options.max_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        print(json.dumps(measure(options.one)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    for size in options.sizes.split(","):
        path = options.folder / f"{size}.json"
        if options.write or path.exists():
            continue
        command = [sys.executable, "-m", "benchmarks.bench_large", "--folder", str(options.folder)]
        command += ["--one", size, "--max-gb", str(options.max_gb)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.splitlines()
        found = json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": done.returncode}
        path.write_text(json.dumps({"commit": record.commit(), **found}, indent=1), encoding="utf-8")
        print(size, found, flush=True)
    if options.write:
        tables = {size: options.folder / f"{size}.json" for size in options.sizes.split(",")}
        found = {size: json.loads(path.read_text()) for size, path in tables.items() if path.exists()}
        print(record.write("large", {"tables": found}, seed=SEED).name)


if __name__ == "__main__":
    main()
