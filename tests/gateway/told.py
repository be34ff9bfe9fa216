"""A real HTTP server on the loopback that answers every path with what a test tells it, block by block."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    """With its query, and escaped as it came."""
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Say:
    """One answer."""

    blocks: Sequence[bytes]
    """Each is written on its own; one block is a whole body."""
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut: bool = False
    """Whether the connection is broken after the last block."""
    wait_s: float = 0.002
    """After each block."""


class Told:
    """Answers with `say`, which a test sets; `seen` is what came."""

    def __init__(self) -> None:
        self.say: Callable[[Asked], Say] = lambda _: whole({})
        self.seen: list[Asked] = []
        self.base_url = ""

    @property
    def last(self) -> Asked:
        """The latest request."""
        return self.seen[-1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.raw_path, headers, await request.read())
        self.seen.append(asked)
        say = self.say(asked)
        if len(say.blocks) == 1 and not say.is_cut:
            return web.Response(
                status=say.status, body=say.blocks[0], content_type=say.kind, headers=say.headers
            )
        response = web.StreamResponse(status=say.status, headers={**say.headers, "content-type": say.kind})
        await response.prepare(request)
        for block in say.blocks:
            await response.write(block)
            await asyncio.sleep(say.wait_s)
        if say.is_cut:
            assert request.transport is not None
            request.transport.abort()
        return response


def whole(value: Any, status: int = 200, **headers: str) -> Say:
    """Say one JSON document."""
    return Say([json.dumps(value).encode()], status=status, headers=headers)


def stream(data: bytes, *, size: int = 50, kind: str = "text/event-stream", is_cut: bool = False) -> Say:
    """Say bytes in blocks of one size, which cut events anywhere."""
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    return Say([*blocks, b""] if len(blocks) == 1 else blocks, kind=kind, is_cut=is_cut)


def sse(*values: Any, done: bool = True) -> bytes:
    """Return events with these values, and `[DONE]`."""
    events = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return b"".join([*events, b"data: [DONE]\n\n"] if done else events)


@contextmanager
def told_server() -> Iterator[Told]:
    """Run a server in a thread of its own."""
    told = Told()
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", told.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        told.base_url = f"http://{host}:{port}/v1"
        ready.set()
        while not stop.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield told
    finally:
        stop.set()
        thread.join()
