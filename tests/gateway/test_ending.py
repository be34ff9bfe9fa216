"""How a gateway ends: it says so, then lets nobody in, and then lets answers finish."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateway.client import Answer, ask, call, rows
from tests.gateway.test_durability import wait_for_request
from tests.gateway.test_workers import crew
from tests.gateway.upstream import Upstream
from turnout.core import ConfigError
from turnout.gateway.config import load_config

LEAVING = {"ready": False, "reason": "the gateway is about to end"}


def write(folder: Path, upstream: Upstream, server: str) -> Path:
    path = folder / "turnout.toml"
    path.write_text(
        f'[providers.main]\nkind = "openai"\nbase_url = "{upstream.base_url}"\n'
        "[models.small]\n[models.large]\n"
        f'[routing]\nretries = 0\n[ledger]\npath = "l.sqlite"\n[server]\nport = 0\n{server}\n'
    )
    return path


@contextmanager
def serving(path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "turnout", "serve", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()[2].replace("0.0.0.0", "127.0.0.1")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


class Kept:
    """A connection that is kept for the next request, as those of a balancer are."""

    def __init__(self, root: str) -> None:
        url = urlsplit(root)
        self.socket = socket.create_connection((url.hostname or "", url.port or 0), timeout=20)

    def get(self, path: str, method: str = "GET") -> tuple[int, str | None]:
        """Return the status, and what is said of the connection."""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        response.read()
        return response.status, response.headers.get("connection")

    def is_closed(self) -> bool:
        """Whether the other side has closed it; closes it here, too."""
        with self.socket as one:
            return one.recv(1) == b""


def stream_of(base_url: str, got: list[Answer]) -> threading.Thread:
    thread = threading.Thread(target=lambda: got.append(ask(base_url, model="small", stream=True)))
    thread.start()
    return thread


def is_refused(root: str) -> bool:
    try:
        call(root, "/healthz")
    except (ConnectionError, http.client.HTTPException):
        return True
    return False


def test_after_sigterm_others_are_let_in_for_a_while_and_told_to_go(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["small"] = "drips"
    got: list[Answer] = []
    path = write(tmp_path, upstream, "drain_s = 20\nleave_s = 1.0")
    with serving(path) as (process, base_url):
        root = base_url.removesuffix("/v1")
        kept, head = Kept(root), Kept(root)
        assert kept.get("/readyz") == (200, None)
        assert head.get("/healthz", "HEAD") == (200, None)
        client = stream_of(base_url, got)
        wait_for_request(upstream)
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        while call(root, "/readyz").status == 200:
            assert time.monotonic() < began_s + 0.8
            time.sleep(0.01)
        ready = call(root, "/readyz")
        assert (ready.status, {**ready.json, **LEAVING}) == (503, ready.json)
        assert call(root, "/healthz").status == 200
        served = ask(base_url, model="large")
        assert (served.status, served.headers["connection"]) == (200, "close")
        # A connection from before has one more answer, which says that it is the last one.
        assert kept.get("/readyz") == (503, "close")
        assert head.get("/healthz", "HEAD") == (200, "close")
        assert kept.is_closed()
        assert head.is_closed()
        while not is_refused(root):
            assert time.monotonic() < began_s + 4.0
            time.sleep(0.02)
        assert time.monotonic() > began_s + 0.9
        assert process.poll() is None, "it waits for the stream"
        upstream.release.set()
        client.join()
        assert process.wait(10) == 0
    assert got[0].body.endswith(b"data: [DONE]\n\n")
    assert [row["status"] for row in rows(tmp_path / "l.sqlite")] == [200, 200]


def test_ctrl_c_waits_for_nobody_new(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path, upstream, "drain_s = 30\nleave_s = 30")
    with serving(path) as (process, base_url):
        assert ask(base_url, model="small").status == 200
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert time.monotonic() < began_s + 5.0


def test_what_is_let_in_counts_towards_the_drain(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "drips"
    got: list[Answer] = []
    path = write(tmp_path, upstream, "drain_s = 2\nleave_s = 1.5")
    with serving(path) as (process, base_url):
        client = stream_of(base_url, got)
        wait_for_request(upstream)
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        client.join()
        assert process.wait(10) == 0
        assert 1.9 < time.monotonic() - began_s < 3.4
    assert b'"code":"shutdown"' in got[0].body


@pytest.mark.parametrize(("host", "is_long"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_by_default_only_a_gateway_for_others_lets_them_in(
    upstream: Upstream, tmp_path: Path, host: str, is_long: bool
) -> None:
    path = write(tmp_path, upstream, f'host = "{host}"')
    with serving(path) as (process, base_url):
        root = base_url.removesuffix("/v1")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert is_refused(root) != is_long
        if is_long:
            assert call(root, "/readyz").json["reason"] == LEAVING["reason"]
            process.send_signal(signal.SIGTERM)  # a second one waits no longer
        began_s = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() < began_s + 3.0


def test_workers_leave_together(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path, upstream, "drain_s = 10\nleave_s = 1.5")
    with crew(path) as gateway:
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        began_s = time.monotonic()
        told = {call(gateway.root, "/readyz").json["reason"] for _ in range(30)}
        assert told == {LEAVING["reason"]}
        assert {ask(gateway.base_url, model="large").status for _ in range(10)} == {200}
        assert time.monotonic() < began_s + 0.8, "all of it before the port is closed"
        assert gateway.process.wait(20) == 0
    assert len(rows(tmp_path / "l.sqlite")) == 10


def test_workers_end_at_once_on_ctrl_c(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path, upstream, "drain_s = 60\nleave_s = 30")
    with crew(path) as gateway:
        workers = gateway.workers
        began_s = time.monotonic()
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(20) == 0
        assert time.monotonic() < began_s + 10.0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_leave_beyond_the_drain_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'server.leave_s' leaves no time to drain; .*\(5\)"):
        load_config(write(tmp_path, upstream, "drain_s = 5\nleave_s = 6"))
    assert load_config(write(tmp_path, upstream, "drain_s = 2")).server.leave_s is None
