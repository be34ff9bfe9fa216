"""This module measures what the gateway adds to streams that arrive slowly, as models write.

64 clients read streams of 50 events a second, directly and through the gateway, in turns. Every event says
when the upstream wrote it, so its way to the client is timed by itself; gaps are times between two events as
a client sees them. The first event is timed from the request on. Then two workers hold 2,000 streams of
five events a second at once, on the same two cores as the clients and the upstream.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
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
    Cores,
    Way,
    body_of,
    pin,
    process,
    texts,
    two_cores,
    write_config,
)
from turnout.core import OutcomeTable
from turnout.datasets import load

CLIENTS, EVENTS, GAP_MS = 64, 100, 20.0
ROUNDS = 5
MANY, MANY_EVENTS, MANY_GAP_MS = 2000, 50, 200.0
SERVE_TWO = SERVE.replace("serve(sys.argv[1], ", "serve(sys.argv[1], workers=2, ")
_WRITTEN = re.compile(rb'"content": ?"([0-9.]+) "')


async def one_stream(session: aiohttp.ClientSession, way: Way, body: bytes, wait_s: float) -> dict[str, Any]:
    """Return the seconds to the first event, of every event's way, and between events."""
    await asyncio.sleep(wait_s)
    started_s, seen_s, ways_s = time.monotonic(), [], []
    url = way.url + "/chat/completions"
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 200, await response.text()
        while data := await response.content.readany():
            now_s = time.monotonic()
            for match in _WRITTEN.finditer(data):
                seen_s.append(now_s)
                ways_s.append(now_s - float(match.group(1)))
    return {"first": seen_s[0] - started_s, "way": ways_s, "gap": np.diff(seen_s)}


async def one_round(way: Way, asked: list[str], spread_s: float = GAP_MS / 100) -> list[dict[str, Any]]:
    """Run all clients side by side, their starts spread over some seconds."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        bodies = [body_of(text, way, stream=True) for text in asked]
        waits_s = np.linspace(0.0, spread_s, len(bodies))
        return await asyncio.gather(
            *(one_stream(session, way, body, float(wait)) for body, wait in zip(bodies, waits_s, strict=True))
        )


def percentiles(values: Any) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(np.asarray(values) * 1e3, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def measure(ways: dict[str, Way], asked: list[str]) -> dict[str, Any]:
    """Return the percentiles of both ways, and the differences of the medians over rounds."""
    seen: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            part = [asked[(number * CLIENTS + i) % len(asked)] for i in range(CLIENTS)]
            found = asyncio.run(one_round(way, part))
            if number:
                seen[name].append(found)
    result: dict[str, Any] = {}
    for what in ("first", "way", "gap"):
        rounds = {
            name: [percentiles(np.concatenate([np.atleast_1d(s[what]) for s in one])) for one in seen[name]]
            for name in ways
        }
        medians = {
            name: {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
            for name, rows in rounds.items()
        }
        added = {key: medians["gateway"][key] - medians["direct"][key] for key in medians["direct"]}
        result[what] = {**medians, "added": added}
    result["events"] = {name: sum(len(s["way"]) for one in seen[name] for s in one) for name in ways}
    return result


def hold_many(table: OutcomeTable, cores: Cores) -> dict[str, Any]:
    """Return what 2,000 streams at once were like, directly and through two workers."""
    command = ["-m", "benchmarks.loopback", str(MANY_EVENTS), str(MANY_GAP_MS)]
    both = cores.gateway | cores.others
    asked = (texts(table) * (MANY // len(table.queries) + 1))[:MANY]
    each = 1e3 / MANY_GAP_MS
    result: dict[str, Any] = {"streams": MANY, "workers": 2, "events_per_second_each": each}
    with tempfile.TemporaryDirectory() as name, process(command, both) as (port, _):
        direct = f"http://127.0.0.1:{port.strip()}/v1"
        config = write_config(Path(name), table, direct)
        with process(["-c", SERVE_TWO, str(config)], both) as (line, _):
            pin(0, both)
            for key, way in (("direct", Way(url=direct)), ("gateway", Way(url=line.strip()))):
                found = asyncio.run(one_round(way, asked, spread_s=MANY_EVENTS * MANY_GAP_MS / 4e3))
                result[key] = {
                    what: percentiles(np.concatenate([np.atleast_1d(one[what]) for one in found]))
                    for what in ("first", "way", "gap")
                }
                result[key]["events"] = sum(len(one["way"]) for one in found)
    return result


def main() -> None:
    """Measure and write the result."""
    table, cores = load("reason18"), two_cores()
    result: dict[str, Any] = {
        "table": {"name": "reason18", "fingerprint": table.fingerprint},
        "clients": CLIENTS,
        "events_per_second_each": 1e3 / GAP_MS,
        "rounds": ROUNDS,
    }
    command = ["-m", "benchmarks.loopback", str(EVENTS), str(GAP_MS)]
    with tempfile.TemporaryDirectory() as name, process(command, cores.others) as (port, _):
        direct = f"http://127.0.0.1:{port.strip()}/v1"
        config = write_config(Path(name), table, direct)
        with process(["-c", SERVE, str(config)], cores.gateway) as (line, _):
            pin(0, cores.others)
            ways = {"direct": Way(url=direct), "gateway": Way(url=line.strip())}
            result.update(measure(ways, texts(table)))
    result["many"] = hold_many(table, cores)
    result["load_average"] = os.getloadavg()[0]
    path = record.write("gateway_streams", result, seed=SEED)
    print(json.dumps(result, indent=1))
    print(path)


if __name__ == "__main__":
    main()
