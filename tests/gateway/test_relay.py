"""A stream goes from one connection to the other, no faster than its client reads."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway.client import row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_disconnect import open_request
from turnout.gateway.lifecycle import running
from turnout.gateway.quick_cycle import QuickCycle

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
BODY = {"model": "small", "messages": [{"role": "user", "content": "x"}], "stream": True}


def event(number: int, size: int = 2) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%07d%b"}}]}\n\n' % (number, b"." * size)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Flood:
    """An upstream that writes one stream, as fast as it can, and says how much of it is out."""

    def __init__(self, num: int, *, size: int = 2, gap_s: float = 0.0) -> None:
        self.num, self.size, self.gap_s, self.num_written = num, size, gap_s, 0
        self.is_cut = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with self.listener, self.listener.accept()[0] as connection:
            connection.recv(65536)
            try:
                connection.sendall(HEAD)
                for number in range(self.num):
                    connection.sendall(chunk(event(number, self.size)))
                    self.num_written = number + 1
                    time.sleep(self.gap_s)
                connection.sendall(chunk(DONE) + b"0\r\n\r\n")
            except ConnectionError:
                self.is_cut.set()


@contextmanager
def gateway(url: str, ledger: Path) -> Iterator[str]:
    with running(make_config(url, ledger, idle_s=20.0), deployment=make_deployment()) as ready:
        yield ready.base_url


def read_all(client: socket.socket) -> tuple[bytes, bytes]:
    """Return head and body of an answer in chunks."""
    parts = [b""]
    while not parts[-1].endswith(b"0\r\n\r\n"):
        parts.append(client.recv(1 << 20))
        assert parts[-1], "cut"
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return head, body


def unchunked(data: bytes) -> bytes:
    found, at = list[bytes](), 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(found)
        found.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size


def test_a_client_that_does_not_read_stops_the_upstream_and_then_gets_every_byte(tmp_path: Path) -> None:
    num, size = 4000, 10_000
    flood = Flood(num, size=size)
    with gateway(flood.url, tmp_path / "ledger.sqlite") as base_url, open_request(base_url, BODY) as client:
        before = -1
        while flood.num_written != before:
            before = flood.num_written
            time.sleep(0.4)
        assert 0 < before < num * 0.6, "what is on the way is bounded"
        head, body = read_all(client)
    assert unchunked(body) == b"".join(event(number, size) for number in range(num)) + DONE
    decision_id = head.split(b"x-turnout-decision-id: ")[1].split(b"\r\n")[0].decode()
    found = row(tmp_path / "ledger.sqlite", decision_id)
    assert (found["status"], found["error"]) == (200, None)


def test_a_client_that_leaves_while_it_does_not_read_frees_the_upstream(tmp_path: Path) -> None:
    flood = Flood(100_000, size=10_000)
    with gateway(flood.url, tmp_path / "ledger.sqlite") as base_url:
        client = open_request(base_url, BODY)
        time.sleep(0.5)
        client.close()
        assert flood.is_cut.wait(5)


def test_no_task_wakes_between_the_two_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within: list[bool] = []
    put = QuickCycle.put

    def watched(cycle: QuickCycle, body: bytes, *, is_last: bool) -> bool:
        within.append(asyncio.current_task() is None)
        return put(cycle, body, is_last=is_last)

    monkeypatch.setattr(QuickCycle, "put", watched)
    flood = Flood(20, gap_s=0.01)
    with gateway(flood.url, tmp_path / "ledger.sqlite") as base_url, open_request(base_url, BODY) as client:
        _, body = read_all(client)
    assert unchunked(body) == b"".join(event(number) for number in range(20)) + DONE
    assert len(within) > 5
    assert sum(within) >= len(within) - 1, "every event but the first goes out in the call that brings it"
