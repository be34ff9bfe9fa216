"""This module writes an answer as uvicorn does, at a third of its cost: one check of the head, one write.

Uvicorn looks at every name and value by two patterns, and writes head and body apart. What is unusual (a HEAD
request, a status without a body, headers about the connection) is left to it. Who knows that it is asked
through such a cycle (`quick_cycle_of`) writes without messages: `begin`, then `put`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from turnout.gateway.disconnect import Receive, Send

_NO_BODY = (204, 304)
_UNUSUAL = frozenset({b"connection", b"transfer-encoding"})
_LENGTH = b"content-length"

Pairs = Sequence[tuple[bytes, bytes]]
App = Callable[..., Awaitable[Any]]


@lru_cache(maxsize=256)
def _look_at(names: tuple[bytes, ...]) -> tuple[bool, int]:
    """Return whether an answer of these headers can be written here, and where its length stands, or -1."""
    is_lower = b"".join(names).islower() or not names
    length_at = names.index(_LENGTH) if _LENGTH in names else -1
    return is_lower and _UNUSUAL.isdisjoint(names), length_at


@final
class _Told:
    """Headers of every answer, written once for as long as the server has the same."""

    def __init__(self) -> None:
        self.headers: Pairs = ()
        self.lines: list[bytes] = []

    def of(self, headers: Pairs) -> list[bytes]:
        """Return the lines of a list of headers, which nobody changes."""
        if headers is not self.headers:
            self.headers, self.lines = headers, [b"%b: %b" % pair for pair in headers]
        return self.lines


_told = _Told()


@final
class _Unheard(asyncio.Event):
    """Stands for the event of a request until somebody waits for it: rare, and an event is a large object."""

    def set(self) -> None:
        """Tell nobody."""

    def clear(self) -> None:
        """Take nothing back."""


_UNHEARD = _Unheard()


@final
class QuickCycle(RequestResponseCycle):
    """One request and its answer on a connection."""

    _head = b""
    """Written with the first of the body."""
    _is_quick = False
    _is_heard = False
    """Whether the body was taken."""
    _is_bare = False
    """Whether the end of the connection is that of the answer, as HTTP/1.0 has it."""

    # Of a cycle that was `begun`, until something happens.
    message_event: asyncio.Event = _UNHEARD
    disconnected = response_started = response_complete = False
    more_body = True
    chunked_encoding: bool | None = None
    expected_content_length = 0

    @classmethod
    def take_over(cls, cycle: RequestResponseCycle) -> None:
        """Make a cycle that was just begun one of this class."""
        cycle.__class__ = cls

    @classmethod
    def begun(cls, protocol: HttpToolsProtocol, *, is_kept: bool) -> QuickCycle:
        """Return the cycle of the request that a connection has just read the headers of."""
        cycle = cls.__new__(cls)
        # What uvicorn's own `__init__` sets, and what differs from request to request.
        cycle.scope = protocol.scope
        cycle.transport = protocol.transport
        cycle.flow = protocol.flow
        cycle.logger = protocol.logger
        cycle.access_logger = protocol.access_logger
        cycle.access_log = protocol.access_log
        cycle.default_headers = protocol.server_state.default_headers
        cycle.on_response = protocol.on_response_complete
        cycle.keep_alive = is_kept
        cycle.waiting_for_100_continue = protocol.expect_100_continue
        cycle.body = bytearray()
        return cycle

    def start(
        self, app: ASGI3Application, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]]
    ) -> None:
        """Run an app in a task that stands on a list for as long.

        It takes itself off, which is cheaper than to be called back by the loop.
        """
        task: asyncio.Task[None] | None = None

        served: App = app

        async def run() -> None:
            try:
                result = await served(self.scope, self.receive, self.send)
            except BaseException as error:  # noqa: BLE001 (the edge: uvicorn logs it and tells the client)
                await self.run_asgi(_ended(None, error))
            else:
                if result is not None or not self.response_complete:
                    await self.run_asgi(_ended(result))
            finally:
                self.on_response = _nothing
                if task is not None:
                    tasks.discard(task)

        task = loop.create_task(run())
        tasks.add(task)

    def begin(self, status: int, headers: Pairs) -> bool:
        """Begin an answer; False where that is not possible here, and `send` has to do it."""
        return not self.response_started and not self.flow.write_paused and self._begin(status, headers)

    def put(self, body: bytes, *, is_last: bool) -> bool:
        """Write a part of an answer that was begun; return whether the client has room for another one."""
        if not self.disconnected:
            self._write(body, is_last)
        return not self.flow.write_paused

    async def drain(self) -> None:
        """Wait until the client has room."""
        await self.flow.drain()

    async def receive(self) -> Any:
        """Return the next message of ASGI's."""
        if self.more_body or self._is_heard or self.disconnected or self.waiting_for_100_continue:
            if self.message_event is _UNHEARD:
                self.message_event = asyncio.Event()
                is_whole = not self.more_body and not self._is_heard
                if self.body or is_whole or self.disconnected or self.response_complete:
                    self.message_event.set()
            return await super().receive()
        # Nearly always: the whole body came with the headers.
        self._is_heard = True
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        """Take a message of ASGI's."""
        if self.response_started and self._is_quick and not self.response_complete:
            if not self.flow.write_paused and not self.disconnected:
                self._write(message.get("body", b""), not message.get("more_body", False))
                return
            if self._is_bare:
                await self.flow.drain()
                self.put(message.get("body", b""), is_last=not message.get("more_body", False))
                return
            if self._head and not self.disconnected:
                self.transport.write(self._head)
            self._head = b""
        elif not self.response_started and self._begin(
            message.get("status", 0), list(message.get("headers", ()))
        ):
            return
        await super().send(message)  # type: ignore[arg-type]

    def _begin(self, status: int, headers: Pairs) -> bool:
        """Keep the head until the body comes; return whether that is possible."""
        if status in _NO_BODY or status < 200 or self.access_log or self.disconnected:
            return False
        is_usual, length_at = _look_at(tuple([name for name, _ in headers]))
        if not is_usual or self.scope["method"] == "HEAD":
            return False
        lines = [*_told.of(self.default_headers), *map(b": ".join, headers)]
        if not self.keep_alive:
            lines.append(b"connection: close")
        self._is_bare = length_at < 0 and self.scope["http_version"] == "1.0"
        is_chunked = length_at < 0 and not self._is_bare
        if is_chunked:
            lines.append(b"transfer-encoding: chunked")
        elif not self._is_bare:
            self.expected_content_length = int(headers[length_at][1])
        told = b"\r\n".join(lines)
        num_ends = len(lines) - 1
        if not told.count(b"\n") == told.count(b"\r") == num_ends or b"\0" in told:
            raise RuntimeError("Invalid HTTP header.")
        self.chunked_encoding = is_chunked
        self.waiting_for_100_continue = False
        self.response_started = self._is_quick = True
        self._head = b"%b%b\r\n\r\n" % (STATUS_LINE[status], told)
        return True

    def _write(self, body: bytes, is_last: bool) -> None:
        """Write a part of the body, and the head before the first."""
        if self.chunked_encoding:
            end = b"0\r\n\r\n" if is_last else b""
            data = b"%b%x\r\n%b\r\n%b" % (self._head, len(body), body, end) if body else self._head + end
        else:
            self.expected_content_length -= len(body)
            is_wrong = self.expected_content_length < 0 or (is_last and self.expected_content_length)
            if is_wrong and not self._is_bare:
                raise RuntimeError("A body of another length than its head says.")
            data = self._head + body
        self._head = b""
        if data:
            self.transport.write(data)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _nothing() -> None:
    return


def _ended(result: object, error: BaseException | None = None) -> ASGI3Application:
    """Return an app that ends as another one did, for uvicorn to say so."""

    async def app(*_: object) -> Any:
        if error is not None:
            raise error
        return result

    return app


def quick_cycle_of(send: Send | Receive) -> QuickCycle | None:
    """Return the cycle that a request is answered through; None under another server."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, QuickCycle) else None
