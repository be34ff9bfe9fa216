"""A client that leaves stops the work upstream, before and after the first byte."""

from __future__ import annotations

import json
import logging
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.gateway.client import ask, call, rows
from tests.gateway.conftest import Served
from tests.gateway.upstream import Upstream


def open_request(base_url: str, body: dict) -> socket.socket:
    url = urlsplit(base_url)
    connection = socket.create_connection((url.hostname, url.port), timeout=10)
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def wait_until(upstream: Upstream, *, seen: int) -> None:
    for _ in range(500):
        if len(upstream.seen) >= seen:
            return
        time.sleep(0.005)
    raise AssertionError("the upstream was not asked")


def end_row(gateway: Served) -> dict:
    for _ in range(200):
        found = [r for r in rows(gateway.ledger) if r["requested_model"] == "small" and r["status"] == 499]
        if found:
            return found[-1]
        time.sleep(0.01)
    raise AssertionError("no row of the client that left")


def test_leaving_in_the_middle_of_a_stream_reaches_the_upstream(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "drips"
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}], "stream": True}
    connection = open_request(gateway.base_url, body)
    received = b""
    while received.count(b"data: ") < 4:
        received += connection.recv(65536)
    left_s = time.monotonic()
    connection.close()
    assert upstream.last.gone.wait(2)
    assert time.monotonic() - left_s < 0.8, "sooner than the silence limit of 1 s would have cut it"
    found = end_row(gateway)
    assert (found["error"], found["served"], found["usage_estimated"]) == ("client_left", "small", 1)
    assert found["output_tokens"] == 3, "nine characters"


@pytest.mark.parametrize("is_stream", [False, True])
def test_leaving_before_the_first_byte_reaches_the_upstream(
    gateway: Served, upstream: Upstream, is_stream: bool
) -> None:
    upstream.behave["small"] = "slow"
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}], "stream": is_stream}
    connection = open_request(gateway.base_url, body)
    wait_until(upstream, seen=1)
    left_s = time.monotonic()
    connection.close()
    assert upstream.last.gone.wait(2)
    assert time.monotonic() - left_s < 0.8
    assert end_row(gateway)["error"] == "client_left"


def test_leaving_while_sending_is_accounted_and_harms_nobody(gateway: Served) -> None:
    url = urlsplit(gateway.base_url)
    before = len(rows(gateway.ledger))
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    for _ in range(200):
        if len(rows(gateway.ledger)) > before:
            break
        time.sleep(0.01)
    assert rows(gateway.ledger)[-1]["status"] == 499
    assert ask(gateway.base_url).status == 200


def test_one_client_that_leaves_does_not_cancel_another(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "drips"
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}], "stream": True}
    connection = open_request(gateway.base_url, body)
    connection.recv(10)
    connection.close()
    assert upstream.last.gone.wait(2)
    assert [ask(gateway.base_url, model="large").status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("path", ["route", "feedback", "conversations", "messages/count_tokens"])
def test_a_client_that_leaves_while_it_sends_is_nothing_to_report(
    gateway: Served, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    url = urlsplit(gateway.base_url)
    with caplog.at_level(logging.ERROR):
        with socket.create_connection((url.hostname, url.port)) as sock:
            head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
            sock.sendall(head.encode() + b'{"model"')
            time.sleep(0.05)
        time.sleep(0.1)
    assert call(gateway.base_url, "/models").status == 200
    assert caplog.records == []
