"""A real HTTP server on the loopback that speaks Anthropic's Messages and refuses what its API refuses."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pydantic
from aiohttp import web
from anthropic.types import MessageCreateParams

_params: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(MessageCreateParams)

USAGE = {
    "input_tokens": 20,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 30,
    "output_tokens": 9,
}
THOUGHT = {"type": "thinking", "thinking": "17 * 23 is a product.", "signature": "c2lnbmVk"}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "multiply", "input": {"a": 17, "b": 23}}
TEXT = {"type": "text", "text": "It is 391. caf\u00e9 \U0001f600"}


_MISSING = {"cut": 1, "ends early": 2, "no stop": 1}
"""Events that are left out at the end of a stream."""


def message(model: str, *blocks: Mapping[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    """Return a whole answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": f"{model}-20260101",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    }


def events(told: Mapping[str, Any], *, is_usage_repeated: bool = False) -> list[bytes]:
    """Return the stream that says the same as a whole answer, in small pieces.

    Anthropic's servers repeat the whole usage at the end; others of that API tell the output's alone there.
    """
    start = {**told, "content": [], "stop_reason": None, "usage": {**told["usage"], "output_tokens": 1}}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(told["content"]):
        empty, deltas = _pieces(block)
        found.append({"type": "content_block_start", "index": index, "content_block": empty})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": told["stop_reason"], "stop_sequence": told["stop_sequence"]}
    usage = told["usage"] if is_usage_repeated else {"output_tokens": told["usage"]["output_tokens"]}
    found += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    return [event(one) for one in found]


def event(value: Mapping[str, Any]) -> bytes:
    """Return one event as the API writes it."""
    return f"event: {value['type']}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _pieces(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [
            {"type": "text_delta", "text": part} for part in _cut(block["text"])
        ]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _cut(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if block["type"] == "tool_use":
        deltas = [
            {"type": "input_json_delta", "partial_json": part} for part in _cut(json.dumps(block["input"]))
        ]
        return {**block, "input": {}}, deltas
    return dict(block), []


def _cut(text: str) -> list[str]:
    return [text[at : at + 6] for at in range(0, len(text), 6)]


def walk(value: Any) -> None:
    """Look at every part: pydantic validates what is iterable only when somebody iterates."""
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        for part in value:
            walk(part)


@dataclass
class AnthropicUpstream:
    """Answers /v1/messages with `told`; `behave` says how, where not well."""

    told: dict[str, Any] = field(default_factory=dict)
    behave: str = "well"
    seen: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: bytes = b""
    base_url: str = ""

    def reset(self) -> None:
        """Answer with a text, and forget what was seen."""
        self.told = message("claude", TEXT)
        self.behave = "well"
        for kept in (self.seen, self.bodies, self.headers):
            kept.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        raw = await request.read()
        asked = json.loads(raw)
        self.seen.append(asked)
        self.bodies.append(raw)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        try:
            walk(_params.validate_python(asked))
        except pydantic.ValidationError as error:
            return _error(400, "invalid_request_error", str(error)[:300])
        if self.behave == "overloaded":
            return _error(529, "overloaded_error", "Overloaded")
        if self.behave == "limited":
            return _error(429, "rate_limit_error", "slow down", {"retry-after": "7"})
        if self.behave == "no message":
            return web.json_response({"type": "ping"})
        if asked.get("stream"):
            return await self._stream(request)
        self.sent = json.dumps(self.told, indent=1).encode()
        return web.Response(body=self.sent, content_type="application/json", headers={"request-id": "req_1"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "request-id": "req_1"})
        await response.prepare(request)
        parts = events(self.told)
        if self.behave == "begins with an error":
            parts = [event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})]
        if self.behave == "error event":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            parts = [*parts[:5], event(error)]
        if self.behave == "bad event":
            parts[5:] = [b"event: content_block_delta\ndata: {oops\n\n", *parts[5:]]
        if self.behave in _MISSING:
            parts = parts[: -_MISSING[self.behave]]
        self.sent = b"".join(parts)
        # Two blocks that cut an event, so that nothing here depends on where blocks end.
        middle = len(self.sent) // 2 + 3
        await response.write(self.sent[:middle])
        await asyncio.sleep(0.01)
        await response.write(self.sent[middle:])
        if self.behave == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response


def _error(status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}
    return web.json_response(body, status=status, headers=headers)


@contextmanager
def anthropic_server() -> Iterator[AnthropicUpstream]:
    """Run an upstream in a thread of its own."""
    upstream = AnthropicUpstream()
    upstream.reset()
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/messages", upstream.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        upstream.base_url = f"http://{host}:{port}/v1"
        ready.set()
        while not stop.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield upstream
    finally:
        stop.set()
        thread.join()
