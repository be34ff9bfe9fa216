"""This module measures what the gateway adds: the same requests to an upstream, directly and through it.

Processes on the loopback: an upstream that answers at once, the gateway with a ridge router fitted on
reason18 and the ledger on, LiteLLM's proxy where it is installed, and the clients. The gateways have a core
of their own where there are two. Requests alternate between the ways in blocks, so that a drift of the
machine meets all. Everything is measured twice: by aiohttp's client, as gateways are usually measured, and by
a lean one (`lean_load`) that leaves the other core to the upstream. `gateway_core_share` is how much of its
core the gateway used: where that is well below 1, something else was the limit. A relay that does nothing but
pass bytes on (`bare_relay`) runs along on the gateway's core: nobody in its place could be faster than it.

LiteLLM's proxy is a heavy installation; `LITELLM` names its command, for example of another environment, or
several of different releases, separated as in PATH. Without it the result says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import uvloop

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
    rss_mb,
    summarise,
    texts,
    two_cores,
    write_config,
)
from benchmarks.lean_load import lean_block
from benchmarks.litellm_proxy import litellm_commands, litellm_proxy, name_of
from turnout.datasets import load
from turnout.gateway import spend_summary

BLOCKS = 5
LOADS = {1: 200, 64: 1500}
"""Requests of one block, by the number of clients."""
STREAM_CLIENTS, STREAMS, EVENTS = 16, 160, 50
STARTS = 5


async def compare(
    ways: Mapping[str, Way],
    asked: list[str],
    clients: int,
    size: int,
    *,
    child: int,
    stream: bool = False,
    lean: bool = False,
) -> dict[str, Any]:
    """Alternate blocks of `size` requests between the ways, after one block each to warm up.

    `child` is the gateway's process.
    """
    found: dict[str, list[tuple[np.ndarray, float]]] = {name: [] for name in ways}
    send = functools.partial(lean_block, num_events=EVENTS if stream else 0) if lean else block
    shares = []
    for number in range(BLOCKS + 1):
        for name, way in ways.items():
            count = max(clients, round(size * way.share))
            part = [asked[(number * count + i) % len(asked)] for i in range(count)]
            sent = [body_of(text, way, stream=stream) for text in part]
            used_s = cpu_s(child)
            measured = await send(way.url + "/chat/completions", sent, clients)
            if number:
                found[name].append(measured)
            if number and name == "gateway":
                shares.append((cpu_s(child) - used_s) / measured[1])
    result: dict[str, Any] = {name: summarise(blocks) for name, blocks in found.items()}
    result["gateway_core_share"] = float(np.median(shares))
    for key in ("total_p50_ms", "total_p99_ms", "first_byte_p50_ms"):
        result[f"added_{key}"] = result["gateway"][key] - result["direct"][key]
    for name in [name for name in ways if name.startswith("litellm")]:
        result[f"times {name}"] = result["gateway"]["per_second"] / result[name]["per_second"]
    return result


def start_s(config: Path, text: str, cores: set[int]) -> tuple[float, float]:
    """Return the seconds from the process to the first answer, and the memory in MB after it."""
    started_s = time.perf_counter()
    with process(["-c", SERVE, str(config)], cores) as (line, child):
        body = body_of(text, Way(url=""), stream=False)

        async def once() -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.post(line.strip() + "/chat/completions", data=body) as response,
            ):
                assert response.status == 200, await response.text()

        asyncio.run(once())
        return time.perf_counter() - started_s, rss_mb(child)


def decision_us(ledger: Path) -> float:
    """Return the median time of a decision, as the ledger has it."""
    connection = sqlite3.connect(ledger)
    rows = connection.execute("SELECT decision_s FROM decisions WHERE decision_s IS NOT NULL").fetchall()
    connection.close()
    return float(np.median(rows) * 1e6)


def main() -> None:
    """Measure and write the result."""
    table, cores = load("reason18"), two_cores()
    result: dict[str, Any] = {"table": {"name": "reason18", "fingerprint": table.fingerprint}}
    result["cores"] = len(cores.gateway | cores.others)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = ["-m", "benchmarks.loopback", str(EVENTS)]
        port, _ = stack.enter_context(process(command, cores.others))
        direct = f"http://127.0.0.1:{port.strip()}/v1"
        config = write_config(folder, table, direct)
        asked = texts(table)
        starts = [start_s(config, text, cores.gateway) for text in asked[:STARTS]]
        result["start_to_first_answer_s"] = float(np.median([s for s, _ in starts]))
        result["rss_after_first_answer_mb"] = float(np.median([mb for _, mb in starts]))
        line, child = stack.enter_context(process(["-c", SERVE, str(config)], cores.gateway))
        ways = {"direct": Way(url=direct), "gateway": Way(url=line.strip())}
        command = ["-m", "benchmarks.bare_relay", port.strip()]
        relay_port, _ = stack.enter_context(process(command, cores.gateway))
        ways["relay"] = Way(url=f"http://127.0.0.1:{relay_port.strip()}/v1")
        result["peers"] = {} if litellm_commands() else {"litellm": "not installed"}
        for command in litellm_commands():
            name = name_of(command)
            peer, why_not = stack.enter_context(litellm_proxy(command, folder, direct, cores.gateway))
            result["peers"][name] = why_not or "measured"
            if peer is not None:
                ways[name] = peer
        pin(0, cores.others)
        used_s = cpu_s(child)
        for clients, size in LOADS.items():
            result[f"clients_{clients}"] = asyncio.run(compare(ways, asked, clients, size, child=child))
        num_whole = (BLOCKS + 1) * sum(LOADS.values())
        result["gateway_cpu_us_per_request"] = (cpu_s(child) - used_s) / num_whole * 1e6
        streams = f"streams_of_{EVENTS}_events_clients_{STREAM_CLIENTS}"
        result[streams] = asyncio.run(compare(ways, asked, STREAM_CLIENTS, STREAMS, child=child, stream=True))
        lean = functools.partial(compare, ways, asked, child=child, lean=True)
        result["lean_load"] = {
            f"clients_{clients}": uvloop.run(lean(clients=clients, size=size))
            for clients, size in LOADS.items()
        }
        result["lean_load"][streams] = uvloop.run(lean(clients=STREAM_CLIENTS, size=STREAMS, stream=True))
        result["decision_p50_us"] = decision_us(folder / "turnout.sqlite")
        summary = spend_summary(folder / "turnout.sqlite")
        result["ledger"] = {"requests": summary.num_requests, "open": summary.num_open}
        result["load_average"] = os.getloadavg()[0]
    path = record.write("gateway", result, seed=SEED)
    print(json.dumps(result, indent=1))
    print(path)


if __name__ == "__main__":
    main()
