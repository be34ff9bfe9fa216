"""This module keeps a gateway busy for a quarter of an hour and looks at its memory and its ledger.

Mixed load on the loopback: whole answers, streams, clients that leave in the middle, an upstream that fails
one request in fifty, by status or by a cut connection. Memory is read every few seconds; growth is the median
of the last minute over that of minute 2. In the end every request has exactly one row, every client that left
is charged for no less than it saw and no more than there was, by the price card of who served it, and what
the key has spent is what the ledger adds up to.

    python -m benchmarks.bench_gateway_soak [minutes]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
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
from turnout.core import OutcomeTable
from turnout.datasets import load
from turnout.gateway import spend_summary

CLIENTS, REQUESTS_PER_S = 16, 200.0
FAULTS, LEAVERS = 0.02, 0.05
EVERY_S = 2.0
EVENTS, GAP_MS = 20, 2.0
KEY = "sk-soak"
MOST_CHARS = EVENTS * len("1234567.123456 ")
"""Of one answer in a stream; an event says when it was written, see `loopback`."""
_SAID = re.compile(rb'"content": "([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Leaver:
    """A client that left, by its own account."""

    decision_id: str
    is_stream: bool
    num_chars: int
    """Characters of the answer that it saw."""


class Load:
    """Clients that never tire; counts what they sent and saw."""

    def __init__(self, way: Way, asked: list[str]) -> None:
        self.url = way.url + "/chat/completions"
        self.bodies = [body_of(text, way, stream=i % 2 == 0) for i, text in enumerate(asked)]
        self.rng = random.Random(SEED)
        self.sent = 0
        self.left: list[Leaver] = []
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
        number = self.sent % len(self.bodies)
        leaves = self.rng.random() < LEAVERS
        self.sent += 1
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        async with session.post(self.url, data=self.bodies[number], headers=headers) as response:
            key = str(response.status)
            self.statuses[key] = self.statuses.get(key, 0) + 1
            seen = await response.content.readany()
            if leaves:
                response.close()
                found = response.headers["x-turnout-decision-id"]
                chars = sum(map(len, _SAID.findall(seen)))
                self.left.append(Leaver(decision_id=found, is_stream=number % 2 == 0, num_chars=chars))
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


def leavers_rows(path: Path, left: list[Leaver], table: OutcomeTable) -> dict[str, float]:
    """Return what those who left were charged for; raises `RuntimeError` where one of it is wrong."""
    cards = {candidate.name: candidate.price_card for candidate in table.candidates}
    connection = sqlite3.connect(path)
    query = (
        "SELECT served, input_tokens, output_tokens, usage_estimated, usd, attempts FROM requests"
        " WHERE decision_id = ?"
    )
    found = {"whole": 0.0, "streams": 0.0, "chars_seen": 0.0, "chars_charged": 0.0}
    for one in left:
        served, tokens_in, tokens_out, is_estimated, usd, attempts = connection.execute(
            query, (one.decision_id,)
        ).fetchone()
        card = cards[served]
        assert card is not None
        expected = card.usd(input_tokens=tokens_in, output_tokens=tokens_out)
        # Whoever was asked before and cut the connection is charged for the prompt, by an estimate.
        is_priced = usd >= expected if attempts > 1 else math.isclose(usd, expected)
        is_known = tokens_out > 0 and (not is_estimated or attempts > 1)
        if one.is_stream:
            is_known = bool(is_estimated) and one.num_chars <= 4 * tokens_out < MOST_CHARS + 4
            found["chars_seen"] += one.num_chars
            found["chars_charged"] += 4 * tokens_out
        found["streams" if one.is_stream else "whole"] += 1
        if not is_priced or not is_known:
            raise RuntimeError(f"{one} and its row: {served} {tokens_in} {tokens_out} {is_estimated} {usd}")
    connection.close()
    return found


def money(folder: Path) -> dict[str, float]:
    """Return what the ledger and the key's own account come to; raises `RuntimeError` where they differ."""
    connection = sqlite3.connect(folder / "keys.sqlite")
    spent, held = connection.execute("SELECT sum(spent_usd), sum(held_usd) FROM spend").fetchone()
    connection.close()
    found = {"ledger_usd": spend_summary(folder / "turnout.sqlite").usd, "key_usd": spent, "held_usd": held}
    if not math.isclose(spent, found["ledger_usd"], rel_tol=1e-9) or abs(held) > 1e-9:
        raise RuntimeError(f"the key has spent something else than the ledger says: {found}")
    return found


def with_key(config: Path) -> Path:
    """Have the gateway ask for a key, whose budget every request reserves from."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    more = f'[auth]\npath = "keys.sqlite"\n[keys.soak]\nsha256 = "{digest}"\nbudget_usd = 1e6\n'
    config.write_text(config.read_text(encoding="utf-8") + more, encoding="utf-8")
    return config


def main(arguments: list[str]) -> None:
    """Measure and write the result."""
    minutes = float(arguments[0]) if arguments else 15.0
    table, cores = load("reason18"), two_cores()
    asked = texts(table)
    command = ["-m", "benchmarks.loopback", str(EVENTS), str(GAP_MS), str(FAULTS)]
    with tempfile.TemporaryDirectory() as name, process(command, cores.others) as (port, _):
        folder = Path(name)
        config = with_key(write_config(folder, table, f"http://127.0.0.1:{port.strip()}/v1"))
        with process(["-c", SERVE, str(config)], cores.gateway) as (line, child):
            pin(0, cores.others)
            busy = Load(Way(url=line.strip()), asked)
            seen = np.array(asyncio.run(run(busy, child, minutes * 60)))
        ledger = ledger_rows(folder / "turnout.sqlite")
        leavers = leavers_rows(folder / "turnout.sqlite", busy.left, table)
        told = money(folder)
    early = np.median(seen[(seen[:, 0] >= 60) & (seen[:, 0] < 120), 1]) if minutes > 2 else seen[0, 1]
    late = np.median(seen[seen[:, 0] >= seen[-1, 0] - 60, 1])
    result: dict[str, Any] = {
        "minutes": minutes,
        "rss_minute_2_mb": float(early),
        "rss_last_minute_mb": float(late),
        "rss_growth": float(late / early - 1),
        "rss_max_mb": float(seen[:, 1].max()),
        "sent": busy.sent,
        "left_early": len(busy.left),
        "leavers": leavers,
        "money": told,
        "statuses": busy.statuses,
        "ledger": ledger,
        "table": {"name": "reason18", "fingerprint": table.fingerprint},
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    print(record.write("gateway_soak", result, seed=SEED))


if __name__ == "__main__":
    main(sys.argv[1:])
