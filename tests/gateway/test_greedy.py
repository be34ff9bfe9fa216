"""Clients that take no answer, or send many bodies and end none, keep neither places nor memory."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import ask, check_advice, rows
from tests.gateway.pool import make_deployment
from tests.gateway.scripted import scripted_server
from tests.gateway.settings import make_config
from tests.gateway.test_floods import POST, connected
from tests.gateway.upstream import Upstream
from turnout.core import ConfigError
from turnout.gateway.lifecycle import Ready, running


@contextlib.contextmanager
def serving(base_url: str, tmp_path: Path, **server: Any) -> Iterator[Ready]:
    config = make_config(base_url, tmp_path / "l.sqlite")
    config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **server))
    with running(config.check(), deployment=make_deployment()) as ready:
        yield ready


def stream_request(client: socket.socket) -> None:
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps(asked).encode()
    client.sendall(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))


def test_a_client_that_reads_nothing_is_cut_off_and_its_place_is_free(tmp_path: Path) -> None:
    """Its upstream is let go, and its row says that it left."""
    told: list[int] = []

    def endless(body: dict) -> Iterator[str]:
        try:
            while len(told) < 2_000:
                told.append(1)
                yield "x" * 50_000
        finally:
            told.extend([0] * 2_000)

    with scripted_server() as server:
        server.say = {"small": endless, "large": lambda body: "large says"}
        with (
            serving(server.base_url, tmp_path, send_s=0.4, max_running=1, queue_s=5.0) as ready,
            connected(ready.base_url) as client,
        ):
            stream_request(client)
            while not server.asked("small"):
                time.sleep(0.01)
            began_s = time.monotonic()
            answer = ask(ready.base_url, {"model": "large"})
            took_s = time.monotonic() - began_s
            assert answer.status == 200
            assert 0.3 < took_s < 4.0
    (left,) = [row for row in rows(tmp_path / "l.sqlite") if row["served"] != "large"]
    assert (left["status"], left["error"]) == (499, "client_left")


def test_a_client_that_reads_slowly_is_waited_for(tmp_path: Path) -> None:
    """Four times as long as a client may take nothing, and every byte of it."""
    with scripted_server() as server:
        server.say = {"small": lambda body: iter(["x" * 50_000] * 100)}
        with serving(server.base_url, tmp_path, send_s=0.3) as ready, connected(ready.base_url) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            stream_request(client)
            found, pauses = b"", 0
            while not found.endswith(b"0\r\n\r\n"):
                block = client.recv(2**19)
                assert block
                found += block
                if pauses < 12:
                    pauses += 1
                    time.sleep(0.1)
    assert found.count(b"x") == 5_000_000 + found.count(b"x-") + found.count(b"text") + found.count(b"index")
    (row,) = rows(tmp_path / "l.sqlite")
    assert row["status"] == 200


def begin_body(base_url: str, megabytes: float) -> contextlib.AbstractContextManager[socket.socket]:
    @contextlib.contextmanager
    def begun() -> Iterator[socket.socket]:
        with connected(base_url) as client:
            client.sendall(POST + b"content-length: 4000000\r\n\r\n")
            client.settimeout(0.5)
            with contextlib.suppress(OSError):
                client.sendall(b" " * int(megabytes * 1e6))
            yield client

    return begun()


def test_bodies_that_are_coming_in_have_a_limit_together(upstream: Upstream, tmp_path: Path) -> None:
    """Whose part is too much is refused; what comes at once is served, and so is everything afterwards."""
    with serving(upstream.base_url, tmp_path, max_bodies_mb=8.0, body_s=30.0) as ready:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(begin_body(ready.base_url, 3.5)) for _ in range(4)]
            refused = []
            for client in clients:
                client.settimeout(0.7)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    refused.append(client.recv(65536))
            assert len(refused) == 2
            for said in refused:
                head, _, body = said.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503")
                assert b"retry-after: 1" in head
                error = json.loads(body)["error"]
                assert error["code"] == "overloaded"
                check_advice(error["message"])
            assert ask(ready.base_url, model="small").status == 200
        # They are gone, and took nothing with them.
        for _ in range(3):
            text = "a " * 1_500_000
            until_s = time.monotonic() + 5
            answer = ask(ready.base_url, model="small", messages=[{"role": "user", "content": text}])
            while answer.status != 200 and time.monotonic() < until_s:
                answer = ask(ready.base_url, model="small", messages=[{"role": "user", "content": text}])
            assert answer.status == 200


def test_a_limit_that_lets_no_large_body_in_is_refused(tmp_path: Path) -> None:
    config = make_config("http://127.0.0.1:1/v1", tmp_path / "l.sqlite")
    server = msgspec.structs.replace(config.server, max_bodies_mb=1.0)
    with pytest.raises(ConfigError, match=r"server\.max_bodies_mb.*at least"):
        msgspec.structs.replace(config, server=server).check()
