"""What a stream gave before it was left or cut is counted by its text, whichever API carried it.

The same characters are asked for in every API, before every kind of upstream, in pieces
long and short.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.client import ask, call, row
from tests.gateway.converse_told import delta, frame
from tests.gateway.of_each_kind import KINDS, config_of, listening, pool_of
from tests.gateway.pool import make_deployment
from tests.gateway.raw_upstream import request_of
from tests.gateway.test_keys import SECRET, hashed
from turnout.core import PriceCard
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings

CARD = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
TURNS = {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 100_000}
PATHS = {
    "chat": ("/v1/chat/completions", TURNS),
    "responses": ("/v1/responses", {"input": "x" * 400, "max_output_tokens": 100_000}),
    "messages": ("/v1/messages", TURNS),
}
LONG, SHORT = ["lorem \u00e9 ipsum " * 200] * 10, ["lorem ", "i", "psum\n", ' "dolor" ', "sit amet"] * 200
USAGE = (1000, 321)
"""Input and output tokens that an upstream reports before the end."""


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def converse(pieces: list[str]) -> Iterator[bytes]:
    yield frame("messageStart", {"role": "assistant"})
    for piece in pieces:
        yield delta(0, {"text": piece})


def gemini(pieces: list[str], told: bool) -> Iterator[bytes]:
    usage = {"usageMetadata": {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1]}}
    for piece in pieces:
        part = {"content": {"role": "model", "parts": [{"text": piece}]}, "index": 0}
        yield f"data: {json.dumps({'candidates': [part], **(usage if told else {})})}\r\n\r\n".encode()


def messages(pieces: list[str], told: bool) -> Iterator[bytes]:
    usage = {"input_tokens": USAGE[0], "output_tokens": 1} if told else {}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [], "usage": usage}
    yield event("message_start", message=message)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for piece in pieces:
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})


def responses(pieces: list[str]) -> Iterator[bytes]:
    yield event("response.created", response={"id": "r", "output": []})
    for piece in pieces:
        yield event("response.output_text.delta", item_id="i", output_index=0, delta=piece)
    # What was said is said again at the end of its part; it was written once.
    yield event("response.output_text.done", item_id="i", output_index=0, text="".join(pieces))


def chat(pieces: list[str], how: str) -> Iterator[bytes]:
    for number, piece in enumerate(pieces):
        said: dict[str, Any] = {"content": piece}
        if how == "tools":
            said = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            said["tool_calls"][0] |= {} if number else {"id": "c1", "type": "function"}
            said["tool_calls"][0]["function"] |= {} if number else {"name": "f"}
        elif how == "thoughts":
            said = {"reasoning_content": piece}
        chunk: dict[str, Any] = {
            "id": "c",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": said, "finish_reason": None}],
        }
        if how == "padded":
            # OpenAI pads events to like lengths, so that texts can't be told by them.
            chunk["obfuscation"] = "p" * max(0, 40 - len(piece))
        if how == "counted":
            chunk["usage"] = {"prompt_tokens": USAGE[0], "completion_tokens": number}
        yield f"data: {json.dumps(chunk)}\n\n".encode()


class Odd:
    """An upstream whose answers are 4,000 characters, and whose usage is what a test says."""

    root = ""
    usage: Any = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await request_of(reader)
        path, is_stream = head.split()[1].decode(), json.loads(body).get("stream")
        data = b"".join(self.stream(path)) if is_stream else json.dumps(self.whole(path)).encode()
        kind = "text/event-stream" if is_stream else "application/json"
        told = f"content-type: {kind}\r\ncontent-length: {len(data)}\r\nconnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{told}\r\n\r\n".encode() + data)
        writer.close()

    def own(self, path: str) -> Any:
        """Return the usage in the words of a path's API."""
        if path.endswith("/completions") or not isinstance(self.usage, dict):
            return self.usage
        return {
            name.replace("prompt", "input").replace("completion", "output"): value
            for name, value in self.usage.items()
        }

    def whole(self, path: str) -> dict[str, Any]:
        usage, text = self.own(path), "word " * 800
        if path.endswith("/messages"):
            content = [{"type": "text", "text": text}]
            head = {"id": "m", "type": "message", "role": "assistant", "model": "x"}
            return {**head, "content": content, "stop_reason": "end_turn", "usage": usage}
        if path.endswith("/responses"):
            part = {"type": "output_text", "text": text, "annotations": []}
            item = {"type": "message", "id": "i", "role": "assistant", "content": [part]}
            return {"id": "r", "object": "response", "output": [item], "usage": usage}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}

    def stream(self, path: str) -> Iterator[bytes]:
        usage, pieces = self.own(path), ["word " * 80] * 10
        if path.endswith("/messages"):
            yield from messages(pieces, told=False)
            yield event("content_block_stop", index=0)
            yield event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
            yield event("message_stop")
        elif path.endswith("/responses"):
            yield from responses(pieces)
            yield event("response.completed", response={"id": "r", "output": [], "usage": usage})
        else:
            yield from chat(pieces, "plain")
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            for one in (end, {"choices": [], "usage": usage}):
                yield f"data: {json.dumps({'id': 'c', **one})}\n\n".encode()
            yield b"data: [DONE]\n\n"


class Teller:
    """An upstream that says what it is told to, and then waits or hangs up."""

    root = ""
    how = "plain"
    is_cut = False

    def __init__(self) -> None:
        self.pieces: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await request_of(reader)
        path = head.split()[1].decode().partition("?")[0]
        kind = "application/vnd.amazon.eventstream" if "converse" in path else "text/event-stream"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for block in self.events(path):
                writer.write(block)
                await writer.drain()
                await asyncio.sleep(0)
            if not self.is_cut:
                await reader.read()
        writer.close()

    def events(self, path: str) -> Iterator[bytes]:
        told = self.how == "counted"
        if "converse" in path:
            return converse(self.pieces)
        if "streamGenerateContent" in path:
            return gemini(self.pieces, told)
        if path.endswith("/messages"):
            return messages(self.pieces, told)
        return responses(self.pieces) if path.endswith("/responses") else chat(self.pieces, self.how)


@pytest.fixture(scope="module")
def teller() -> Iterator[Teller]:
    made = Teller()
    with listening(made):
        yield made


@pytest.fixture(scope="module")
def stand(teller: Teller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A gateway before one upstream of each kind; each candidate has its own."""
    ledger = tmp_path_factory.mktemp("given") / "l.sqlite"
    config = config_of(teller.root, ledger)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEARER", "x")
        with running(config.check(), deployment=make_deployment(pool_of(CARD))) as ready:
            yield ready.base_url, ledger


def taken(stand: tuple[str, Path], teller: Teller, api: str, kind: str, *, leaves: bool = True) -> dict:
    """Take all that an upstream says, then leave or see it cut; return the row."""
    base_url, ledger = stand
    url, (path, body) = urlsplit(base_url), PATHS[api]
    teller.is_cut = not leaves
    data = json.dumps({**body, "model": kind, "stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as connection:
        connection.sendall(head.encode() + data)
        received = b""
        if leaves:
            connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while b"\r\n0\r\n\r\n" not in received and (block := connection.recv(1 << 20)):
                received += block
    decision_id = received.partition(b"x-turnout-decision-id: ")[2].partition(b"\r\n")[0].decode()
    return row(ledger, decision_id)


def check(found: dict, chars: int, tokens_in: int = 100) -> None:
    assert found["usage_estimated"] == 1
    assert found["input_tokens"] == tokens_in
    assert found["output_tokens"] == pytest.approx(chars / 4, rel=0.2)
    assert found["usd"] == pytest.approx((found["input_tokens"] * 1.0 + found["output_tokens"] * 4.0) / 1e6)


@pytest.mark.parametrize("pieces", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("api", PATHS)
def test_who_leaves_a_stream_is_charged_for_what_it_gave(
    stand: tuple[str, Path], teller: Teller, api: str, kind: str, pieces: list[str]
) -> None:
    teller.pieces, teller.how = pieces, "plain"
    found = taken(stand, teller, api, kind)
    assert found["status"] == 499
    check(found, len("".join(pieces)))


@pytest.mark.parametrize("api", PATHS)
def test_a_stream_that_is_cut_is_charged_likewise(stand: tuple[str, Path], teller: Teller, api: str) -> None:
    teller.pieces, teller.how = LONG, "plain"
    for kind in KINDS:
        found = taken(stand, teller, api, kind, leaves=False)
        assert (found["status"], found["error"]) == (502, "upstream_cut")
        check(found, len("".join(LONG)))


@pytest.mark.parametrize("how", ["tools", "thoughts", "padded"])
@pytest.mark.parametrize("api", PATHS)
def test_tool_calls_and_thoughts_count_and_padding_does_not(
    stand: tuple[str, Path], teller: Teller, api: str, how: str
) -> None:
    for pieces in (LONG, SHORT):
        teller.pieces, teller.how = pieces, how
        check(taken(stand, teller, api, "chat only"), len("".join(pieces)))


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("kind", ["chat only", "anthropic", "gemini"])
def test_what_was_reported_before_the_end_is_the_least(
    stand: tuple[str, Path], teller: Teller, kind: str, api: str
) -> None:
    """Few characters, and an upstream that has already counted more than they are."""
    teller.pieces, teller.how = ["word "] * 322, "counted"
    found = taken(stand, teller, api, kind)
    check(found, 322 * 5, tokens_in=USAGE[0])
    teller.pieces = ["w"] * 322
    found = taken(stand, teller, api, kind)
    assert (found["usage_estimated"], found["input_tokens"]) == (1, USAGE[0])
    if kind != "anthropic":
        assert found["output_tokens"] == USAGE[1]


ODD = [
    {"prompt_tokens": "10", "completion_tokens": 10.5},
    [1],
    "none",
    {"prompt_tokens": 0, "completion_tokens": 0},
    {"prompt_tokens": 100, "completion_tokens": None, "prompt_tokens_details": [1]},
    None,
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Odd, str, Path]]:
    """A gateway before an upstream that speaks three APIs and reports its usage in odd ways."""
    upstream, folder, kinds = Odd(), tmp_path_factory.mktemp("odd"), KINDS[:3]
    with listening(upstream):
        config = config_of(
            upstream.root,
            folder / "l.sqlite",
            kinds,
            auth=AuthSettings(path=str(folder / "keys.sqlite")),
            keys={"team": KeySettings(sha256=hashed(), budget_usd=100.0)},
        )
        with running(config.check(), deployment=make_deployment(pool_of(CARD, kinds))) as ready:
            yield upstream, ready.base_url, folder / "l.sqlite"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("usage", ODD, ids=str)
def test_an_answer_whose_usage_cannot_be_read_is_charged_by_its_text(
    odd: tuple[Odd, str, Path], usage: object, is_stream: bool
) -> None:
    """4,000 characters are some 1,000 tokens, whatever stands where the usage should be."""
    upstream, base_url, ledger = odd
    upstream.usage = usage
    for api, (path, body) in PATHS.items():
        for kind in ("openai", "anthropic", "chat only"):
            answer = call(
                base_url.removesuffix("/v1"),
                path,
                method="POST",
                body=json.dumps({**body, "model": kind, "stream": is_stream}).encode(),
                headers={"authorization": f"Bearer {SECRET}"},
            )
            assert answer.status == 200, (api, kind, answer.body)
            found = row(ledger, answer.decision_id)
            assert found["error"] is None, (api, kind, found, answer.body[-300:])
            check(found, 4000)


def test_a_count_that_is_written_with_a_point_is_a_count(odd: tuple[Odd, str, Path]) -> None:
    upstream, base_url, ledger = odd
    upstream.usage = {"prompt_tokens": 10.0, "completion_tokens": 10000.0}
    answer = ask(base_url, model="openai", headers={"authorization": f"Bearer {SECRET}"})
    found = row(ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (10, 10000, 0)
