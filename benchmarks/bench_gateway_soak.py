"""This module keeps a gateway busy for a quarter of an hour and looks at its memory and its ledger.

Mixed load on the loopback: whole answers, streams, clients that leave in the middle, an upstream that fails
one request in fifty, by status or by a cut connection. Memory is read every few seconds; growth is the median
of the last minute over that of minute 2. In the end every request has exactly one row.

    python -m benchmarks.bench_gateway_soak [minutes]
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks import record
from benchmarks.gateway_load import (
    SEED,
    SERVE,
    Way,
    body_of,
    pin,
    process,
    rss_mb,
    texts,
    two_cores,
    write_config,
)
from turnout.datasets import load

CLIENTS, REQUESTS_PER_S = 16, 200.0
FAULTS, LEAVERS = 0.02, 0.05
EVERY_S = 2.0


class Load:
    """Clients that never tire; counts what they sent and saw."""

    def __init__(self, way: Way, asked: list[str]) -> None:
        self.url = way.url + "/chat/completions"
        self.bodies = [body_of(text, way, stream=i % 2 == 0) for i, text in enumerate(asked)]
        self.rng = random.Random(SEED)
        self.sent = 0
        self.left = 0
        self.statuses: dict[str, int] = {}

    async def client(self, session: aiohttp.ClientSession, until_s: float) -> None:
        """Ask at a steady rate until the end."""
        while time.monotonic() < until_s:
            started_s = time.monotonic()
            await self.ask(session)
            pause_s = CLIENTS / REQUESTS_PER_S - (time.monotonic() - started_s)
            await asyncio.sleep(max(0.0, pause_s))

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """Ask once; some leave after the first bytes."""
        body = self.bodies[self.sent % len(self.bodies)]
        leaves = self.rng.random() < LEAVERS
        self.sent += 1
        async with session.post(
            self.url, data=body, headers={"content-type": "application/json"}
        ) as response:
            key = str(response.status)
            self.statuses[key] = self.statuses.get(key, 0) + 1
            await response.content.readany()
            if leaves:
                self.left += 1
                response.close()
                return
            await response.read()


async def run(load_: Load, process_id: int, seconds: float) -> list[tuple[float, float]]:
    """Return (seconds, MB) as time goes by."""
    started_s, seen = time.monotonic(), []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        tasks = [asyncio.create_task(load_.client(session, started_s + seconds)) for _ in range(CLIENTS)]
        while (now_s := time.monotonic() - started_s) < seconds:
            seen.append((now_s, rss_mb(process_id)))
            print(f"\rsoak: {now_s:.0f}/{seconds:.0f} s, {seen[-1][1]:.1f} MB", end="", file=sys.stderr)
            await asyncio.sleep(EVERY_S)
        await asyncio.gather(*tasks)
    print(file=sys.stderr)
    return seen


def ledger_rows(path: Path) -> dict[str, int]:
    """Return how many requests the ledger has, how many twice, and how many without an end."""
    connection = sqlite3.connect(path)
    count = "SELECT COUNT(*), COUNT(DISTINCT decision_id) FROM "
    decisions, distinct = connection.execute(count + "decisions").fetchone()
    results, ended = connection.execute(count + "results").fetchone()
    connection.close()
    return {"requests": distinct, "twice": decisions - distinct + results - ended, "open": distinct - ended}


def main(arguments: list[str]) -> None:
    """Measure and write the result."""
    minutes = float(arguments[0]) if arguments else 15.0
    table, cores = load("reason18"), two_cores()
    asked = texts(table)
    command = ["-m", "benchmarks.loopback", "20", "0", str(FAULTS)]
    with tempfile.TemporaryDirectory() as name, process(command, cores.others) as (port, _):
        folder = Path(name)
        config = write_config(folder, table, f"http://127.0.0.1:{port.strip()}/v1")
        with process(["-c", SERVE, str(config)], cores.gateway) as (line, child):
            pin(0, cores.others)
            busy = Load(Way(url=line.strip()), asked)
            seen = np.array(asyncio.run(run(busy, child, minutes * 60)))
        ledger = ledger_rows(folder / "turnout.sqlite")
    early = np.median(seen[(seen[:, 0] >= 60) & (seen[:, 0] < 120), 1]) if minutes > 2 else seen[0, 1]
    late = np.median(seen[seen[:, 0] >= seen[-1, 0] - 60, 1])
    result: dict[str, Any] = {
        "minutes": minutes,
        "rss_minute_2_mb": float(early),
        "rss_last_minute_mb": float(late),
        "rss_growth": float(late / early - 1),
        "rss_max_mb": float(seen[:, 1].max()),
        "sent": busy.sent,
        "left_early": busy.left,
        "statuses": busy.statuses,
        "ledger": ledger,
        "table": {"name": "reason18", "fingerprint": table.fingerprint},
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    print(record.write("gateway_soak", result, seed=SEED))


if __name__ == "__main__":
    main(sys.argv[1:])
