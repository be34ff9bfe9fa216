"""This module measures what the gateway adds: the same requests to an upstream, directly and through it.

Three processes on the loopback: an upstream that answers at once, the gateway with a ridge router fitted
on reason18 and the ledger on, and the clients. The gateway has a core of its own where there are two.
Requests alternate between the two ways in blocks, so that a drift of the machine meets both.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks import record
from turnout.core import Goal, OutcomeTable
from turnout.core.artifact import save
from turnout.datasets import load
from turnout.gateway import spend_summary
from turnout.training import train

SEED = 0
PROMPT_CHARS = 320
"""About 80 tokens."""
BLOCKS = 5
LOADS = {1: 200, 64: 1500}
"""Requests of one block, by the number of clients."""
STREAM_CLIENTS, STREAMS, EVENTS = 16, 160, 50

SERVE = """
import sys
from turnout.gateway import serve
serve(sys.argv[1], ready=lambda ready: print(ready.base_url, flush=True))
"""


@contextmanager
def process(command: list[str], cores: set[int]) -> Iterator[tuple[str, int]]:
    """Run a command on these cores, and yield the first line that it prints, and its process id."""
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(child.pid, cores)
        assert child.stdout is not None
        yield child.stdout.readline(), child.pid
    finally:
        child.terminate()
        child.communicate(timeout=60)


def write_config(folder: Path, table: OutcomeTable, upstream: str) -> Path:
    """Fit a ridge router, save it, and write the gateway's settings."""
    deployment = train(table, Goal(usd_per_quality=0.01), router="ridge", seed=SEED)
    save(deployment, folder / "deployment")
    path = folder / "turnout.toml"
    path.write_text(
        'deployment = "deployment"\n[server]\nport = 0\n'
        f'[providers.main]\nkind = "openai"\nbase_url = "{upstream}"\n',
        encoding="utf-8",
    )
    return path


def bodies(table: OutcomeTable, *, stream: bool) -> list[bytes]:
    """Return request bodies of about 80 tokens, all different questions."""
    texts = [" ".join((query.words * 4).split())[:PROMPT_CHARS] for query in table.queries]
    return [
        json.dumps(
            {"model": "turnout/auto", "messages": [{"role": "user", "content": text}], "stream": stream},
            separators=(",", ":"),
        ).encode()
        for text in texts
    ]


async def block(url: str, sent: list[bytes], clients: int) -> tuple[np.ndarray, float]:
    """Send every body once, `clients` at a time; return first-byte and total seconds (N, 2), and the span."""
    times: list[tuple[float, float]] = []
    queue = iter(sent)

    async def client(session: aiohttp.ClientSession) -> None:
        for body in queue:
            started_s = time.perf_counter()
            async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
                await response.content.readany()
                first_s = time.perf_counter() - started_s
                await response.read()
                assert response.status == 200, await response.text()
            times.append((first_s, time.perf_counter() - started_s))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started_s = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        duration_s = time.perf_counter() - started_s
    return np.array(times), duration_s


async def compare(ways: dict[str, str], sent: list[bytes], clients: int, size: int) -> dict[str, Any]:
    """Alternate blocks of `size` requests between the ways, after one block each to warm up."""
    found: dict[str, list[tuple[np.ndarray, float]]] = {name: [] for name in ways}
    for number in range(BLOCKS + 1):
        part = [sent[(number * size + i) % len(sent)] for i in range(size)]
        for name, url in ways.items():
            measured = await block(url + "/chat/completions", part, clients)
            if number:
                found[name].append(measured)
    result: dict[str, Any] = {name: summarise(blocks) for name, blocks in found.items()}
    for key in ("total_p50_ms", "total_p99_ms", "first_byte_p50_ms"):
        result[f"added_{key}"] = result["gateway"][key] - result["direct"][key]
    return result


def summarise(blocks: list[tuple[np.ndarray, float]]) -> dict[str, float]:
    """Return percentiles over all blocks, and the median rate of a block."""
    ms = np.concatenate([times for times, _ in blocks]) * 1e3
    return {
        "first_byte_p50_ms": float(np.percentile(ms[:, 0], 50)),
        "total_p50_ms": float(np.percentile(ms[:, 1], 50)),
        "total_p99_ms": float(np.percentile(ms[:, 1], 99)),
        "per_second": float(np.median([len(times) / duration_s for times, duration_s in blocks])),
    }


def cpu_s(process_id: int) -> float:
    """Return the processor time that a process has used; NaN where the system does not say."""
    path = Path(f"/proc/{process_id}/stat")
    if not path.exists():
        return float("nan")
    fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def decision_us(ledger: Path) -> float:
    """Return the median time of a decision, as the ledger has it."""
    import sqlite3

    connection = sqlite3.connect(ledger)
    rows = connection.execute("SELECT decision_s FROM decisions WHERE decision_s IS NOT NULL").fetchall()
    connection.close()
    return float(np.median(rows) * 1e6)


def main() -> None:
    """Measure and write the result."""
    table = load("reason18")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    gateway_cores, other_cores = {cores[0]}, set(cores[1:2] or cores)
    result: dict[str, Any] = {
        "table": {"name": "reason18", "fingerprint": table.fingerprint},
        "cores": len(cores),
    }
    with (
        tempfile.TemporaryDirectory() as name,
        process(["-m", "benchmarks.loopback", str(EVENTS)], other_cores) as (port, _),
    ):
        folder, direct = Path(name), f"http://127.0.0.1:{port.strip()}/v1"
        config = write_config(folder, table, direct)
        with process(["-c", SERVE, str(config)], gateway_cores) as (line, child):
            ways = {"direct": direct, "gateway": line.strip()}
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, other_cores)
            whole, events = bodies(table, stream=False), bodies(table, stream=True)
            used_s = cpu_s(child)
            for clients, size in LOADS.items():
                result[f"clients_{clients}"] = asyncio.run(compare(ways, whole, clients, size))
            num_whole = (BLOCKS + 1) * sum(LOADS.values())
            result["gateway_cpu_us_per_request"] = (cpu_s(child) - used_s) / num_whole * 1e6
            streams = asyncio.run(compare(ways, events, STREAM_CLIENTS, STREAMS))
            result[f"streams_of_{EVENTS}_events_clients_{STREAM_CLIENTS}"] = streams
        result["decision_p50_us"] = decision_us(folder / "turnout.sqlite")
        summary = spend_summary(folder / "turnout.sqlite")
        result["ledger"] = {"requests": summary.num_requests, "open": summary.num_open}
        result["load_average"] = os.getloadavg()[0]
    path = record.write("gateway", result, seed=SEED)
    print(json.dumps(result, indent=1))
    print(path)


if __name__ == "__main__":
    main()
