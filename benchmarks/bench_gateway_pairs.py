"""This module measures what a change did to the gateway's speed: an older commit beside this tree.

`python -m benchmarks.bench_gateway_pairs fb25bf1` serves both from one core and sends them the same
requests in turns, so that whatever else the machine does meets both. What is recorded are ratios of pairs of
neighbouring blocks, which hold on a machine that others use too, and the interval of their median from
resampled pairs; speeds are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.gateway_load import (
    SEED,
    SERVE,
    Way,
    block,
    body_of,
    cpu_s,
    pin,
    process,
    texts,
    two_cores,
    write_config,
)
from turnout.datasets import load

PAIRS = int(os.environ.get("PAIRS", "12"))
EVENTS = 50
LOADS = {"whole_clients_64": (64, 800, False), "streams_clients_16": (16, 240, True)}
"""Clients, requests of a block, and whether they are streams of `EVENTS` events."""


def unpack(commit: str, folder: Path) -> Path:
    """Write the sources of a commit into a folder; return what goes onto Python's path."""
    archive = subprocess.run(["git", "archive", commit, "src"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


@contextmanager
def sources(path: Path) -> Iterator[None]:
    """Have processes that are started meanwhile run these sources."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(path), str(Path.cwd())])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def summary(ratios: list[float]) -> dict[str, Any]:
    """Return the median of ratios, and the 95 % interval of it."""
    values, rng = np.array(ratios), np.random.default_rng(SEED)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def compare(urls: dict[str, str], pids: dict[str, int], asked: list[str], load_name: str) -> dict[str, Any]:
    """Return new over old: requests per second, and processor time per request."""
    clients, size, is_stream = LOADS[load_name]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in urls}
    for number in range(PAIRS + 1):
        names = list(urls) if number % 2 else list(urls)[::-1]
        for name in names:
            way = Way(url=urls[name])
            sent = [
                body_of(asked[(number * size + i) % len(asked)], way, stream=is_stream) for i in range(size)
            ]
            used_s = cpu_s(pids[name])
            _, span_s = asyncio.run(block(way.url + "/chat/completions", sent, clients))
            if number:
                found[name].append((size / span_s, (cpu_s(pids[name]) - used_s) / size * 1e6))
    pairs = list(zip(found["old"], found["new"], strict=True))
    return {
        "rate_new_over_old": summary([new[0] / old[0] for old, new in pairs]),
        "cpu_new_over_old": summary([new[1] / old[1] for old, new in pairs]),
    }


def main(commit: str) -> None:
    """Measure and write the result."""
    table, cores = load("reason18"), two_cores()
    full = subprocess.run(["git", "rev-parse", commit], check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = {"old_commit": full.strip()[:12], "pairs": PAIRS}
    result["table"] = {"name": "reason18", "fingerprint": table.fingerprint}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = ["-m", "benchmarks.loopback", str(EVENTS)]
        port, _ = stack.enter_context(process(command, cores.others))
        trees = {"old": unpack(commit, folder / "old"), "new": Path.cwd() / "src"}
        urls, pids = {}, {}
        for name, tree in trees.items():
            (folder / name).mkdir(exist_ok=True)
            config = write_config(folder / name, table, f"http://127.0.0.1:{port.strip()}/v1")
            with sources(tree):
                line, pids[name] = stack.enter_context(process(["-c", SERVE, str(config)], cores.gateway))
            urls[name] = line.strip()
        pin(0, cores.others)
        for load_name in LOADS:
            result[load_name] = compare(urls, pids, texts(table), load_name)
        result["load_average"] = os.getloadavg()[0]
    path = record.write("gateway_pairs", result, seed=SEED)
    print(json.dumps(result, indent=1))
    print(path)


if __name__ == "__main__":
    main(sys.argv[1])
