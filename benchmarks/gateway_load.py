"""This module puts load on gateways: processes on cores of their own, requests, and how long they took."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from turnout.core import Goal, OutcomeTable
from turnout.core.artifact import save
from turnout.policies.deployment import Deployment
from turnout.training import train

SEED = 0
PROMPT_CHARS = 320
"""About 80 tokens."""

SERVE = """
import sys
from turnout.gateway import serve
serve(sys.argv[1], ready=lambda ready: print(ready.base_url, flush=True))
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where requests go, and under which model name."""

    url: str
    """Ends in `/v1`."""
    model: str = "turnout/auto"
    share: float = 1.0
    """How many of the requests of a block this way gets: a slow server needs fewer for a steady rate."""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Which cores whom: the gateway alone on one, everybody else on the other."""

    gateway: set[int]
    others: set[int]


def two_cores() -> Cores:
    """Return the first two cores of this process; one for both where there is no second."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return Cores(gateway={cores[0]}, others=set(cores[1:2] or cores))


def pin(process_id: int, cores: set[int]) -> None:
    """Keep a process (0 is this one) on these cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process_id, cores)


@contextmanager
def process(command: Sequence[str], cores: set[int]) -> Iterator[tuple[str, int]]:
    """Run Python with these arguments on these cores; yield the first line that it prints, and its id."""
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        pin(child.pid, cores)
        assert child.stdout is not None
        yield child.stdout.readline(), child.pid
    finally:
        child.terminate()
        child.communicate(timeout=60)


def write_config(folder: Path, table: OutcomeTable, upstream: str) -> Path:
    """Fit a ridge router, save it, and write the gateway's settings.

    Without a guard: it would step aside on this table, and the ridge would not be asked.
    """
    fitted = train(table, Goal(usd_per_quality=0.01), router="ridge", seed=SEED)
    save(
        Deployment(router=fitted.router, fallback=fitted.fallback, policy=fitted.policy, goal=fitted.goal),
        folder / "deployment",
    )
    path = folder / "turnout.toml"
    path.write_text(
        'deployment = "deployment"\n[server]\nport = 0\n'
        f'[providers.main]\nkind = "openai"\nbase_url = "{upstream}"\n',
        encoding="utf-8",
    )
    return path


def texts(table: OutcomeTable) -> list[str]:
    """Return questions of about 80 tokens, all different."""
    return [" ".join((query.words * 4).split())[:PROMPT_CHARS] for query in table.queries]


def body_of(text: str, way: Way, *, stream: bool) -> bytes:
    """Return the body of a request."""
    messages = [{"role": "user", "content": text}]
    return json.dumps(
        {"model": way.model, "messages": messages, "stream": stream}, separators=(",", ":")
    ).encode()


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
    threads = list(Path(f"/proc/{process_id}/task").glob("*/schedstat"))
    if not threads:
        return float("nan")
    return sum(int(path.read_text(encoding="utf-8").split()[0]) for path in threads) / 1e9


def rss_mb(process_id: int) -> float:
    """Return the resident memory of a process; NaN where the system does not say."""
    path = Path(f"/proc/{process_id}/statm")
    if not path.exists():
        return float("nan")
    return int(path.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
