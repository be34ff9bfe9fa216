"""A client that leaves is felt upstream within 100 ms, whichever API it speaks, passed on or translated.

Its place and its budget are free again as well: the gateway has one place, and the key pays for one request
at a time, so that each try is refused where the one before it still held either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.converse_told import delta, frame
from tests.gateway.of_each_kind import KINDS, config_of, listening, pool_of
from tests.gateway.pool import make_deployment
from tests.gateway.raw_upstream import request_of
from tests.gateway.test_keys import SECRET, hashed
from turnout.core import PriceCard
from turnout.gateway.config import ServerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import KeySettings

MOST_S = 0.1
TRIES = 3
CARD = PriceCard(input_usd_per_mtok=0.001, output_usd_per_mtok=1.0)
OUTPUT_TOKENS = 100_000
TURNS = {"messages": [{"role": "user", "content": "x"}], "max_tokens": OUTPUT_TOKENS}
PATHS = {
    "chat": ("/v1/chat/completions", TURNS),
    "responses": ("/v1/responses", {"input": "x", "max_output_tokens": OUTPUT_TOKENS}),
    "messages": ("/v1/messages", TURNS),
}
CASES = [(api, kind, how) for api in PATHS for kind in KINDS for how in ("whole", "waiting", "streaming")]


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def drips(path: str) -> tuple[str, bytes, bytes]:
    """Return the content type of a stream, how it begins, and what is dripped, as a path's API has it."""
    sse = "text/event-stream"
    if "converse" in path:
        start = frame("messageStart", {"role": "assistant"})
        return "application/vnd.amazon.eventstream", start, delta(0, {"text": "x"})
    if "streamGenerateContent" in path:
        piece = {"candidates": [{"content": {"role": "model", "parts": [{"text": "x"}]}, "index": 0}]}
        return sse, b"", f"data: {json.dumps(piece)}\r\n\r\n".encode()
    if path.endswith("/messages"):
        message = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "x",
            "content": [],
            "usage": {},
        }
        start = event("message_start", message=message)
        start += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        return sse, start, event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})
    if path.endswith("/responses"):
        start = event("response.created", response={"id": "r", "output": []})
        return sse, start, event("response.output_text.delta", item_id="i", output_index=0, delta="x")
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "x"}}],
    }
    return sse, b"", f"data: {json.dumps(chunk)}\n\n".encode()


class Patient:
    """An upstream that never comes to an end, and knows when each of its connections was closed."""

    def __init__(self) -> None:
        self.is_dripping = False
        self.begun = threading.Event()
        self.closed = threading.Event()
        self.closed_s = 0.0
        self.root = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await request_of(reader)
        beside = (
            asyncio.create_task(self._drip(head.split()[1].decode(), writer)) if self.is_dripping else None
        )
        self.begun.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.closed_s = time.monotonic()
        self.closed.set()
        if beside is not None:
            beside.cancel()
        writer.transport.abort()

    async def _drip(self, path: str, writer: asyncio.StreamWriter) -> None:
        kind, start, piece = drips(path.partition("?")[0])
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode() + start)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    made = Patient()
    with listening(made):
        yield made


@pytest.fixture(scope="module")
def base_url(patient: Patient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with one place, before one upstream of each kind; each candidate has its own."""
    config = config_of(
        patient.root,
        tmp_path_factory.mktemp("leaving") / "l.sqlite",
        server=ServerSettings(port=0, max_body_mb=4.0, max_running=1, max_queued=0),
        keys={"poor": KeySettings(sha256=hashed(), budget_usd=1.5 * OUTPUT_TOKENS / 1e6)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEARER", "x")
        with running(config.check(), deployment=make_deployment(pool_of(CARD))) as ready:
            yield ready.base_url


def leave(base_url: str, patient: Patient, api: str, kind: str, how: str) -> float:
    """Ask, leave in the middle, and return how long the upstream did not know of it, in seconds."""
    patient.begun.clear()
    patient.closed.clear()
    patient.is_dripping = how == "streaming"
    url = urlsplit(base_url)
    path, body = PATHS[api]
    data = json.dumps({**body, "model": kind, "stream": how != "whole"}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as connection:
        connection.sendall(head.encode() + data)
        if how == "streaming":
            received = b""
            while received.count(b"data: ") < 4:
                block = connection.recv(65536)
                assert block, received
                received += block
            assert received.startswith(b"HTTP/1.1 200"), received
        else:
            connection.settimeout(0.0)
            if not patient.begun.wait(2):
                raise AssertionError(connection.recv(65536))
        left_s = time.monotonic()
    assert patient.closed.wait(5), "the upstream was not told"
    return patient.closed_s - left_s


@pytest.mark.parametrize(("api", "kind", "how"), CASES)
def test_the_upstream_knows_within_a_tenth_of_a_second(
    base_url: str, patient: Patient, api: str, kind: str, how: str
) -> None:
    # The median: one try may meet a machine that does something else.
    waited_s = statistics.median(leave(base_url, patient, api, kind, how) for _ in range(TRIES))
    assert waited_s < MOST_S


def test_the_grid_covers_every_api_that_streams() -> None:
    from turnout.gateway.protocols import PROTOCOLS

    # Embeddings are not routed, and compaction has no streams.
    streaming = {one.path for one in PROTOCOLS if one.is_routed and one.name != "compact"}
    assert streaming == {path for path, _ in PATHS.values()}
