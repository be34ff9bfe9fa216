"""Answers that are written quickly are byte for byte what uvicorn writes; what is unusual is left to it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnout.gateway.attended import AttendedProtocol
from turnout.gateway.disconnect import Message, Receive, Scope, Send
from turnout.gateway.quick_cycle import QuickCycle

App = Callable[[Scope, Receive, Send], Awaitable[None]]
JSON = (b"content-type", b"application/json")


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def told(*messages: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


GET = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"
CASES: dict[str, tuple[App, bytes]] = {
    "length": (told(start(JSON, (b"content-length", b"5")), body(b"hello")), GET),
    "length in two": (told(start((b"content-length", b"5")), body(b"he", more=True), body(b"llo")), GET),
    "empty": (told(start((b"content-length", b"0")), body()), GET),
    "chunks": (told(start(JSON), body(b"one", more=True), body(more=True), body(b"two"), body(b"no")), GET),
    "no chunk": (told(start(JSON), body()), GET),
    "head": (told(start((b"content-length", b"5")), body()), GET.replace(b"GET", b"HEAD")),
    "no content": (told(start(status=204), body()), GET),
    "close": (told(start((b"content-length", b"2"), (b"connection", b"close")), body(b"ok")), GET),
    "client closes": (
        told(start(JSON), body(b"ok")),
        GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
    ),
    "old": (told(start(JSON, (b"content-length", b"2")), body(b"ok")), GET.replace(b"1.1", b"1.0")),
    "capitals": (told(start((b"Content-Length", b"2")), body(b"ok")), GET),
    "a line in a value": (told(start((b"x-a", b"b\r\nset-cookie: c")), body(b"ok")), GET),
    "a line in a name": (told(start((b"x\n-a", b"b")), body(b"ok")), GET),
    "two requests": (told(start((b"content-length", b"2")), body(b"ok")), GET + GET.replace(b"x", b"y")),
    "too long": (told(start((b"content-length", b"1")), body(b"ok")), GET),
    "too short": (told(start((b"content-length", b"3")), body(b"ok")), GET),
    "a body first": (told(body(b"ok")), GET),
    "nothing": (told(), GET),
    "only a head": (told(start(JSON)), GET),
}


async def answer(app: App, asked: bytes, protocol: type[HttpToolsProtocol]) -> bytes:
    """Return all that comes within a moment, without the date."""
    settings = uvicorn.Config(app, http=protocol, port=0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(settings)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn sets no event)
        await asyncio.sleep(0.002)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname()[:2])
    writer.write(asked)
    found = b""
    with contextlib.suppress(TimeoutError):
        while data := await asyncio.wait_for(reader.read(65536), 0.1):
            found += data
    found += b"(closed)" if reader.at_eof() else b"(open)"
    writer.close()
    server.should_exit = True
    await task
    return re.sub(rb"date: [^\r]+\r\n", b"", found)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_the_bytes_are_uvicorns(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> tuple[bytes, bytes]:
        return await answer(*CASES[name], AttendedProtocol), await answer(*CASES[name], HttpToolsProtocol)

    quick, own = asyncio.run(test())
    if name in ("too long", "too short", "only a head"):
        # Uvicorn has written the head by then; either way the client sees a connection that was cut.
        assert quick.endswith(b"(closed)")
        assert own.endswith(b"(closed)")
        assert own.startswith(quick.removesuffix(b"(closed)"))
        return
    if name.startswith("a line"):
        assert quick.startswith(b"HTTP/1.1 500 "), "uvicorn hangs up without a word"
        assert b"set-cookie" not in quick
        assert own == b"(closed)"
        return
    assert quick == own


def test_head_and_body_are_one_write_and_a_part_of_a_stream_another(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = QuickCycle._write

    def watched(cycle: QuickCycle, body: bytes, is_last: bool) -> None:
        before = cycle.transport
        cycle.transport = Watched(before)  # type: ignore[assignment]
        write(cycle, body, is_last)
        cycle.transport = before

    class Watched:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def write(self, data: bytes) -> None:
            writes.append(data)
            self.transport.write(data)

    monkeypatch.setattr(QuickCycle, "_write", watched)
    asyncio.run(answer(*CASES["length"], AttendedProtocol))
    assert len(writes) == 1
    assert writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert writes[0].endswith(b"\r\n\r\nhello")
    writes.clear()
    asyncio.run(answer(*CASES["chunks"], AttendedProtocol))
    assert [data[-10:] for data in writes[1:]] == [b"3\r\ntwo\r\n0\r\n\r\n"[-10:]]
