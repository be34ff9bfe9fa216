"""A block ends when its client leaves, whichever way the server tells it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import uvicorn

from turnout.gateway.attended import LEFT, AttendedProtocol
from turnout.gateway.disconnect import Attended, ClientGoneError, Message, Receive, Scope, Send

REQUEST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


def test_without_a_call_back_the_next_message_is_waited_for() -> None:
    async def test() -> None:
        leaves = asyncio.Event()

        async def receive() -> Message:
            await leaves.wait()
            return {"type": "http.disconnect"}

        with Attended(receive, {}):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, leaves.set)
        with pytest.raises(ClientGoneError), Attended(receive, {}):
            await asyncio.sleep(5)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(test())


async def serve(app: object, **more: Any) -> tuple[uvicorn.Server, asyncio.Task[None], int]:
    settings = uvicorn.Config(app, http=AttendedProtocol, port=0, lifespan="off", log_config=None, **more)  # type: ignore[arg-type]
    server = uvicorn.Server(settings)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn sets no event)
        await asyncio.sleep(0.005)
    return server, task, server.servers[0].sockets[0].getsockname()[1]


def test_the_servers_connection_calls_back_once_and_only_whom_it_concerns() -> None:
    async def test() -> None:
        told: list[str] = []
        arrived = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            is_last = dict(scope["headers"]).get(b"last") == b"1"
            unwatch = scope[LEFT](lambda: told.append("first"))
            if not is_last:
                unwatch()
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            scope[LEFT](lambda: told.append("last"))
            unwatch()
            with pytest.raises(ClientGoneError), Attended(receive, scope):  # noqa: PT012 (the event is set inside)
                arrived.set()
                await asyncio.sleep(5)
            # Who asks after the end is told, too.
            scope[LEFT](lambda: told.append("late"))
            await asyncio.sleep(0)

        server, task, port = await serve(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert b"204" in await reader.readuntil(b"\r\n\r\n")
        writer.write(REQUEST.replace(b"host", b"last: 1\r\nhost"))
        await asyncio.wait_for(arrived.wait(), 5)
        assert told == []
        writer.transport.abort()
        for _ in range(100):
            await asyncio.sleep(0.005)
            if "late" in told:
                break
        assert told == ["last", "late"]
        server.should_exit = True
        await task

    asyncio.run(test())


def test_a_connection_is_closed_when_it_was_idle_and_not_while_it_works() -> None:
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.35)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        server, task, port = await serve(app, timeout_keep_alive=0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(REQUEST)
            assert b"204" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
        began_s = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert asyncio.get_running_loop().time() - began_s > 0.1
        writer.close()
        server.should_exit = True
        await task

    asyncio.run(test())
