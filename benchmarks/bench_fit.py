"""This module times fitting, each router on each table in a process of its own, with its peak memory.

The time is that of `fit` on the whole table, the embedder included; a child runs `--one TABLE ROUTER`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

from benchmarks import record
from turnout.datasets import load
from turnout.routers import registry

NAMES = ("routerdc7", "llmrouter", "lookahead", "zeroeval", "routellm_pair")
ROUTERS = ("ridge", "knn", "group_mean", "best_single")


def fit_one(table_name: str, router_name: str) -> dict[str, object]:
    """Fit once in this process."""
    table = load(table_name)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, started_cpu = time.perf_counter(), time.process_time()
    registry.get(router_name)().fit(table)
    return {
        "fit_s": time.perf_counter() - started,
        "fit_cpu_s": time.process_time() - started_cpu,
        "table_rss_mb": before_mb,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "queries": len(table.queries),
        "candidates": len(table.candidates),
        "fingerprint": table.fingerprint,
    }


def main(arguments: list[str]) -> None:
    """Write `fit.json`."""
    if arguments[:1] == ["--one"]:
        print(json.dumps(fit_one(*arguments[1:])))
        return
    result: dict[str, object] = {"load_average_before": list(os.getloadavg())}
    for name, _ in record.tables(*NAMES):
        for router in ROUTERS:
            command = [sys.executable, "-m", "benchmarks.bench_fit", "--one", name, router]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result[f"{name}/{router}"] = json.loads(done.stdout)
            print(name, router, done.stdout.strip(), flush=True)
    result["load_average_after"] = list(os.getloadavg())
    print(record.write("fit", result, seed=0).name)


if __name__ == "__main__":
    main(sys.argv[1:])
