"""A real process under load is told to stop, or killed; the ledger is read afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway.client import Answer, ask, call, events_of, rows
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import Ready

ROOT = Path(__file__).parents[2]


class Process:
    """A gateway in a process of its own."""

    def __init__(self, upstream: Upstream, ledger: Path, drain_s: int = 10) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.gateway.server_main"]
        self.child = subprocess.Popen(
            [*command, upstream.base_url, str(ledger), str(drain_s)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise AssertionError(self.child.communicate()[1])
        told = json.loads(line)
        self.ready = Ready(base_url=told["base_url"], notices=tuple(told["notices"]))

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal and return exit code, output and errors."""
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, out, err


@contextlib.contextmanager
def process(upstream: Upstream, ledger: Path, drain_s: int = 10) -> Iterator[Process]:
    made = Process(upstream, ledger, drain_s)
    try:
        yield made
    finally:
        if made.child.poll() is None:
            made.child.kill()
        made.child.wait(10)
        for pipe in (made.child.stdout, made.child.stderr):
            if pipe is not None:
                pipe.close()


class Load:
    """Four clients that ask as fast as they can, and remember when each answer was complete."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.done: list[tuple[float, Answer]] = []
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(4)]
        for thread in self.threads:
            thread.start()

    def work(self, number: int) -> None:
        while True:
            try:
                answer = ask(self.base_url, model=("small", "large")[number % 2], stream=number % 4 == 3)
            except (OSError, http.client.HTTPException):
                return
            self.done.append((time.time(), answer))

    def wait_for(self, count: int) -> None:
        """Wait until so many answers are complete, however busy the machine is."""
        for _ in range(4000):
            if len(self.done) >= count:
                return
            time.sleep(0.01)
        raise AssertionError(f"{len(self.done)} answers of {count}")

    def join(self) -> None:
        for thread in self.threads:
            thread.join()


def test_sigterm_under_load_loses_no_row(upstream: Upstream, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with process(upstream, ledger) as gateway:
        load = Load(gateway.ready.base_url)
        load.wait_for(60)
        code, out, err = gateway.end(signal.SIGTERM)
        load.join()
    assert (code, out, err) == (0, "closed\n", "")
    answered = {answer.decision_id: answer.status for _, answer in load.done}
    assert len(answered) > 50
    written = {row["decision_id"]: row["status"] for row in rows(ledger)}
    assert None not in written.values()
    assert {key: written.get(key) for key in answered} == answered
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.pins.sqlite", "ledger.sqlite"]


def test_sigterm_lets_a_running_stream_finish(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "drips"
    ledger = tmp_path / "ledger.sqlite"
    got: list[Answer] = []
    with process(upstream, ledger) as gateway:
        client = threading.Thread(
            target=lambda: got.append(ask(gateway.ready.base_url, model="small", stream=True))
        )
        client.start()
        wait_for_request(upstream)
        gateway.child.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert gateway.child.poll() is None, "it waits for the stream"
        upstream.release.set()
        client.join()
        assert gateway.child.wait(10) == 0
    assert got[0].body.endswith(b"data: [DONE]\n\n")
    assert [row["status"] for row in rows(ledger)] == [200]


@pytest.mark.parametrize(("how", "is_stream"), [("slow", False), ("drips", True)])
def test_a_drain_that_takes_too_long_is_cut_and_accounted(
    upstream: Upstream, tmp_path: Path, how: str, is_stream: bool
) -> None:
    upstream.behave["small"] = how
    ledger = tmp_path / "ledger.sqlite"
    got: list[Answer] = []
    with process(upstream, ledger, drain_s=1) as gateway:
        client = threading.Thread(
            target=lambda: got.append(ask(gateway.ready.base_url, model="small", stream=is_stream))
        )
        client.start()
        wait_for_request(upstream)
        code, _, err = gateway.end(signal.SIGTERM)
        client.join()
    assert code == 0
    assert "Traceback" not in err
    if is_stream:
        assert '"code":"shutdown"' in events_of(got[0].body)[-1]
    else:
        assert (got[0].status, got[0].error["code"]) == (503, "shutdown")
    assert [(row["status"], row["error"]) for row in rows(ledger)] == [(503, "shutdown")]
    assert upstream.last.gone.wait(2)


def test_kill_loses_at_most_the_last_tenth_of_a_second_and_the_restart_says_so(
    upstream: Upstream, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with process(upstream, ledger) as gateway:
        load = Load(gateway.ready.base_url)
        load.wait_for(60)
        time.sleep(0.15)
        killed_s = time.time()
        code, _, _ = gateway.end(signal.SIGKILL)
        load.join()
        pid = gateway.child.pid
    assert code == -signal.SIGKILL
    written = {row["decision_id"]: row["status"] for row in rows(ledger)}
    early = {answer.decision_id: answer.status for at_s, answer in load.done if at_s < killed_s - 0.1}
    assert len(early) > 50
    assert {key: written.get(key) for key in early} == early

    with process(upstream, ledger) as gateway:
        notices = gateway.ready.notices
        gateway.end(signal.SIGTERM)
    assert len(notices) == 1
    assert f"(process {pid})" in notices[0]
    assert "was not closed" in notices[0]
    connection = sqlite3.connect(ledger)
    sessions = connection.execute("SELECT closed_s, found_open_s FROM sessions ORDER BY started_s").fetchall()
    connection.close()
    assert [(closed is None, found is None) for closed, found in sessions] == [(True, False), (False, True)]

    with process(upstream, ledger) as gateway:
        assert gateway.ready.notices == (), "it is said once"
        gateway.end(signal.SIGTERM)


def test_what_was_lost_in_a_kill_is_shown_as_lost_and_what_runs_as_running(
    upstream: Upstream, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite"

    def told(base_url: str) -> tuple[int, int, list[bool]]:
        root = base_url.removesuffix("/v1")
        totals = call(root, "/ui/data?span=all").json["totals"]
        listed = call(root, "/ui/decisions").json["decisions"]
        return totals["running"], totals["lost"], [one["is_lost"] for one in listed]

    upstream.behave["small"] = "slow"
    with process(upstream, ledger) as gateway, ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, gateway.ready.base_url, model="small")
        wait_for_request(upstream)
        time.sleep(1.1)  # a row is there within 0.1 s, and a look serves everybody for one second
        assert told(gateway.ready.base_url) == (1, 0, [False])
        gateway.end(signal.SIGKILL)
        with pytest.raises((OSError, http.client.HTTPException)):
            asked.result()
    with process(upstream, ledger) as gateway:
        assert told(gateway.ready.base_url) == (0, 1, [True])
        found = call(gateway.ready.base_url.removesuffix("/v1"), "/ui/decisions?kind=lost").json
        assert len(found["decisions"]) == 1
        gateway.end(signal.SIGTERM)


def wait_for_request(upstream: Upstream) -> None:
    for _ in range(1000):
        if upstream.seen:
            return
        time.sleep(0.005)
    raise AssertionError("the upstream was not asked")
