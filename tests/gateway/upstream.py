"""A real HTTP server on the loopback that speaks the OpenAI API, well or badly, as each model is told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

NUM_EVENTS = 40
"""Text events of one stream."""

ACCOUNT = {"openai-organization": "org-secret", "openai-version": "2020-10-01"}
"""Headers that OpenAI's answers have, too."""


@dataclass
class Seen:
    """One request as it came in."""

    headers: dict[str, str]
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> dict:
        """The body, decoded."""
        return json.loads(self.body)


class Upstream:
    """Answers /v1/chat/completions; `script[model]` says how at first, `behave[model]` how after that."""

    def __init__(self) -> None:
        self.behave: dict[str, str] = {}
        self.script: dict[str, list[str]] = {}
        self.seen: list[Seen] = []
        self.sent: list[bytes] = []
        self.base_url = ""
        self.release = threading.Event()

    def reset(self) -> None:
        """Forget what was seen, and behave."""
        self.behave.clear()
        self.script.clear()
        self.seen.clear()
        self.sent.clear()
        self.release.clear()

    @property
    def last(self) -> Seen:
        """The latest request."""
        return self.seen[-1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        body = await request.read()
        seen = Seen(headers={k.lower(): v for k, v in request.headers.items()}, body=body)
        self.seen.append(seen)
        asked = json.loads(body)
        how = self._how(asked["model"])
        if how.startswith("late"):
            await asyncio.sleep(0.3)
            how = how.removeprefix("late").strip()
        if how.isdigit():
            error = {"message": f"told to say {how}", "type": "told", "param": None, "code": "told"}
            headers = {"x-ratelimit-remaining-requests": "0", **ACCOUNT}
            if how in ("429", "503", "529"):
                headers["retry-after"] = "7"
            return web.json_response({"error": error}, status=int(how), headers=headers)
        if how == "hangs up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if how == "slow":
            await self._until_gone(seen)
        if asked.get("stream"):
            return await self._stream(request, asked, how, seen)
        if how == "garbage":
            return web.Response(body=b"<html>not json", content_type="text/html")
        if how == "half a body":
            half = web.StreamResponse(headers={"content-length": "1000"})
            await half.prepare(request)
            await half.write(b'{"id": ')
            assert request.transport is not None
            request.transport.abort()
            return half
        if how == "bare":
            message = {"role": "assistant", "content": "x" * 40}
            return web.json_response({"choices": [{"message": message}]})
        return web.Response(body=completion(asked["model"]), content_type="application/json", headers=ACCOUNT)

    def _how(self, model: str) -> str:
        """Return how to behave now: what is next in the model's script, else what it always does."""
        if self.script.get(model):
            return self.script[model].pop(0)
        return self.behave.get(model, "well")

    async def _stream(self, request: web.Request, asked: dict, how: str, seen: Seen) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if how == "empty":
            return response
        if how == "error event":
            await response.write(b'data: {"error": {"message": "overloaded"}}\n\ndata: [DONE]\n\n')
            return response
        wants_usage = (asked.get("stream_options") or {}).get("include_usage", False)
        for number, event in enumerate(events(asked["model"], wants_usage=wants_usage)):
            if how == "hangs up after done" and event == b"data: [DONE]\n\n":
                await response.write(event)
                await asyncio.sleep(0.05)
                assert request.transport is not None
                request.transport.abort()
                return response
            if how == "cut" and number == 5:
                assert request.transport is not None
                request.transport.abort()
                return response
            if how == "bad event" and number == 5:
                await response.write(b": a comment\n\ndata: {not json}\n\n")
            if how == "ends early" and number == 5:
                return response
            self.sent.append(event)
            try:
                await response.write(event)
            except ConnectionError:
                seen.gone.set()
                raise
            if how == "drips" and number >= 3:
                await self._until_gone(seen)
        return response

    async def _until_gone(self, seen: Seen) -> None:
        """Wait until told to go on, or until the connection is closed from the other side."""
        try:
            while not self.release.is_set():  # noqa: ASYNC110 (set in a thread)
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            seen.gone.set()
            raise


def completion(model: str) -> bytes:
    """Return a whole answer, with spacing and escapes that a re-encoder would not keep."""
    return (
        b'{"id": "chatcmpl-1", "object": "chat.completion", "created": 1,  "model": "'
        + model.encode()
        + b'-0613", "choices": [{"index": 0, "message": '
        b'{"role": "assistant", "content": "caf\\u00e9 \\/ 1.50"}, "finish_reason": "stop"}], '
        b'"usage": {"prompt_tokens": 11, "completion_tokens": 7, '
        b'"total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 4}}, "vendor": 1.50e+3}'
    )


def events(model: str, *, wants_usage: bool) -> Iterator[bytes]:
    """Yield the events of a stream: role, text, end, usage where asked for, and [DONE]."""
    head = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": f"{model}-0613"}
    silent = {"usage": None} if wants_usage else {}

    def event(delta: dict, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({**head, "choices": [choice], **silent}).encode() + b"\n\n"

    yield event({"role": "assistant", "content": ""})
    for number in range(NUM_EVENTS):
        yield event({"content": f"w{number} "})
    yield event({}, "stop")
    if wants_usage:
        usage = {"prompt_tokens": 11, "completion_tokens": NUM_EVENTS, "total_tokens": 11 + NUM_EVENTS}
        yield b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


@contextmanager
def upstream_server() -> Iterator[Upstream]:
    """Run an upstream in a thread of its own."""
    upstream = Upstream()
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", upstream.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        upstream.base_url = f"http://{host}:{port}/v1"
        ready.set()
        while not stop.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)
        upstream.release.set()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield upstream
    finally:
        stop.set()
        thread.join()
