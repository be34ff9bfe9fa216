"""Clients that send too much, too slowly or too cleverly are refused, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.gateway.client import ask, call, row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway import attended
from turnout.gateway.attended import MAX_HEAD_BYTES, MAX_HEADERS
from turnout.gateway.lifecycle import running

BODY = b'{"model":"small","messages":[{"role":"user","content":"hi"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@contextlib.contextmanager
def served(upstream: Upstream, tmp_path: Path, **server: Any) -> Iterator[tuple[str, Path]]:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **server))
    with running(config, deployment=make_deployment()) as ready:
        yield ready.base_url, tmp_path / "l.sqlite"


@contextlib.contextmanager
def connected(base_url: str) -> Iterator[socket.socket]:
    url = urlsplit(base_url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes, or says nothing more of one answer."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while block := client.recv(65536):
            found += block
            head, end, body = found.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if end and length and len(body) >= int(length[0].split(b":")[1]):
                break
    return found


@pytest.mark.parametrize(
    "head",
    [
        b"x-a: " + b"a" * (MAX_HEAD_BYTES + 1) + b"\r\n",
        b"x-a: " + b"a" * 2_000_000 + b"\r\n",
        b"".join(b"x-%d: a\r\n" % number for number in range(MAX_HEADERS)),
    ],
    ids=["long", "longer", "many"],
)
def test_a_head_beyond_all_bounds_is_a_431(gateway: Any, head: bytes) -> None:
    with connected(gateway.base_url) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"no http at all\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxx\r\n",
    ],
    ids=["head", "body"],
)
def test_what_is_no_http_is_an_error_object(gateway: Any, sent: bytes) -> None:
    with connected(gateway.base_url) as client:
        client.sendall(sent)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "no_http"


def test_a_head_within_bounds_is_read(gateway: Any) -> None:
    head = b"x-a: " + b"a" * (MAX_HEAD_BYTES - 500) + b"\r\n" + b"x: y\r\n" * 50
    with connected(gateway.base_url) as client:
        for _ in range(2):
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("where", ["head", "trailer"])
def test_a_head_without_an_end_is_cut_and_holds_nobody_up(gateway: Any, where: str) -> None:
    begin = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: "
    if where == "trailer":
        begin = POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx-a: "
    with connected(gateway.base_url) as client:
        sent, block = 0, b"a" * 2**16
        client.sendall(begin)
        with contextlib.suppress(ConnectionError):
            while sent < 30_000_000:
                client.sendall(block)
                sent += len(block)
        assert sent < 30_000_000, "the server takes no end of it"
        began_s = time.monotonic()
        assert call(gateway.base_url.removesuffix("/v1"), "/healthz").status == 200
        assert time.monotonic() - began_s < 2


@pytest.mark.parametrize("kind", [b"h2c", b"websocket"])
def test_an_upgrade_that_nobody_offers_is_ignored(gateway: Any, upstream: Upstream, kind: bytes) -> None:
    more = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AAMAAABk\r\n" % kind
    with connected(gateway.base_url) as client:
        # Twice on one connection, and with the body in a packet of its own.
        for is_apart in (False, True):
            head = POST + more + b"content-length: %d\r\n\r\n" % len(BODY)
            client.sendall(head if is_apart else head + BODY)
            if is_apart:
                time.sleep(0.05)
                client.sendall(BODY)
            answer = read_all(client)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert [seen.json["messages"][0]["content"] for seen in upstream.seen] == ["hi", "hi"]


def test_upgrades_one_behind_the_other_are_ignored_each(gateway: Any) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with connected(gateway.base_url) as client:
        client.sendall(one * 1200 + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        found = b""
        while block := client.recv(65536):
            found += block
    assert found.count(b"HTTP/1.1 200 ") == 1201


def test_slow_bodies_hold_no_place(upstream: Upstream, tmp_path: Path) -> None:
    with (
        served(upstream, tmp_path, max_running=1, max_queued=0, body_s=30.0) as (base_url, _),
        connected(base_url) as one,
        connected(base_url) as other,
    ):
        for client in (one, other):
            client.sendall(POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY[:1])
        time.sleep(0.1)
        assert ask(base_url, BODY).status == 200
        one.sendall(BODY[1:])
        assert read_all(one).startswith(b"HTTP/1.1 200 "), "a slow body is no wrong one"


def test_a_body_that_never_comes_is_a_408(upstream: Upstream, tmp_path: Path) -> None:
    with served(upstream, tmp_path, body_s=0.3) as (base_url, ledger):
        for sent in (b"", BODY[:1]):
            began_s = time.monotonic()
            with connected(base_url) as client:
                client.sendall(POST + b"content-length: %d\r\n\r\n" % len(BODY) + sent)
                answer = read_all(client)
                assert client.recv(1) == b"", "the connection is of no use any more"
            assert time.monotonic() - began_s < 5
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"body_timeout"' in answer
            name = answer.lower().split(b"x-turnout-decision-id: ")[1].split(b"\r\n")[0].decode()
            assert row(ledger, name)["status"] == 408
        with connected(base_url) as client:
            client.sendall(b"POST /v1/route HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_http_1_0_gets_a_stream_as_it_is(gateway: Any, upstream: Upstream) -> None:
    body = BODY.replace(b"{", b'{"stream":true,', 1)
    with connected(gateway.base_url) as client:
        client.sendall(POST.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = read_all(client)
    head, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert events == b"".join(event for event in upstream.sent if b'"usage": {' not in event)


@pytest.mark.parametrize("after_an_answer", [False, True])
def test_a_head_that_drips_in_is_a_408_in_time(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_an_answer: bool
) -> None:
    monkeypatch.setattr(attended, "HEAD_S", 0.5)
    with served(upstream, tmp_path) as (base_url, _), connected(base_url) as client:
        if after_an_answer:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 200 ")
        client.settimeout(0.1)
        began_s, found = time.monotonic(), b""
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: ")
        while not found and time.monotonic() - began_s < 5:
            with contextlib.suppress(TimeoutError):
                found = client.recv(65536)
            if not found:
                client.sendall(b"a")
        assert 0.4 < time.monotonic() - began_s < 2
        assert found.startswith(b"HTTP/1.1 408 ")
        assert b"head_timeout" in found


def test_a_connection_without_a_byte_is_closed_in_time(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attended, "HEAD_S", 0.3)
    with served(upstream, tmp_path) as (base_url, _), connected(base_url) as client:
        client.settimeout(5)
        assert client.recv(1) == b""


def test_the_time_for_a_head_ends_with_it(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attended, "HEAD_S", 0.3)
    with served(upstream, tmp_path) as (base_url, _), connected(base_url) as client:
        client.sendall(POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY[:10])
        time.sleep(0.6)
        client.sendall(BODY[10:])
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
