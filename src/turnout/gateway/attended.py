"""This module is uvicorn's HTTP connection, which says at once when its client has left.

ASGI tells it to whoever waits for the next message, which takes a task beside every request. A request that
finds `LEFT` in its scope is called back instead; under another server it waits as ASGI has it. Besides, it
bounds headers, ignores an `upgrade` (uvicorn would lose the body that comes with one) and trailers (uvicorn
would take them for headers), and closes a connection whose client does not read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnout.core.errors import sentence
from turnout.gateway.bell import bell_of
from turnout.gateway.deaf import turn_deaf
from turnout.gateway.errors import error_body
from turnout.gateway.quick_cycle import QuickCycle
from turnout.gateway.stalled import Stalled

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, HTTPScope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LEFT = "turnout.left"
"""Where a request finds in its scope whom to ask for a call when its client leaves."""

MAX_HEAD_BYTES = 2**16
"""Bytes of a request's line and headers; more are answered with 431."""

MAX_HEADERS = 256
"""Headers of a request; more are answered with 431."""

HEAD_S = 30.0
"""Seconds from the first byte of a request, or of a new connection, to the end of its headers; then 408."""

SEND_S = 60.0
"""Seconds in which a client has to read something of what is sent to it, where nobody says otherwise."""

_ABOUT_UPGRADE = (b"upgrade", b"http2-settings", b"connection")

Tell = Callable[[], None]
Unwatch = Callable[[], object]
Watch = Callable[[Tell], Unwatch]
"""Takes what to call; returns what takes it back."""


@final
class AttendedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        *args: Any,
        send_s: Callable[[], float] = lambda: SEND_S,
        is_leaving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._send_s = send_s
        self._is_leaving = is_leaving
        """Whether the answer to the next request is the last one here."""
        self._stalled: Stalled | None = None
        # Handlers that somebody puts on the logger, as pytest does, ask for no log.
        self.access_log = self.access_log and self.config.access_log
        self._watching = set[Tell]()
        self._is_lost = False
        self._bell = bell_of(self.loop)
        self._is_upgrade = False
        self._num_bytes = 0
        """Bytes that came since a request, or a part of its body, was whole."""
        self.due_s = math.inf
        """When the connection is closed, for it was idle, or a head came, for too long; else infinity."""
        self._is_idle = False
        """Whether a request was answered and nothing of the next has come."""

    def leave(self) -> None:
        """Close the connection after the answer that is on its way, else after the next one."""
        self._is_leaving = True
        if not self._is_free():
            self.cycle.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the transport, and wait for a first head."""
        super().connection_made(transport)
        self._wait(HEAD_S)

    def on_message_begin(self) -> None:
        """Let the request be told."""
        # What uvicorn's own does, and one entry more.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
            LEFT: self._watch,
        }
        self.scope = cast("HTTPScope", scope)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; headers without an end are cut."""
        if self._is_idle:
            # The rest of the head has its time from here on, however slowly it drips in.
            self._is_idle, self.due_s = False, self._bell.loop.time() + HEAD_S
        self._num_bytes += len(data)
        while True:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserError as error:
                self._refuse(is_too_large=isinstance(error.__context__, _HeadTooLargeError))
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade:
                    self._unsupported_upgrade_warning()
                    return
                data = self._without_upgrade() + data[upgrade.args[0] :]
        if self._num_bytes > MAX_HEAD_BYTES:
            self._refuse(is_too_large=True)

    def on_headers_complete(self) -> None:
        """Begin the request; its answer is written more quickly."""
        self._unset_keepalive_if_required()
        if self._num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._check_head()
        self._begin()
        if not self._is_upgrade:
            # What comes after the body is no header (RFC 9110, 6.5.1): a proxy may not have looked at it.
            self.headers = []

    def _begin(self) -> None:
        parser = self.parser
        is_usual = parser.get_http_version() == "1.1" and not parser.should_upgrade()
        if not is_usual or not self._is_free() or self.limit_concurrency is not None or self.root_path:
            self._begin_unusual()
            return
        path, raw_path, query = _cut(self.url)
        more = {
            "method": parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
        }
        cast("dict[str, Any]", self.scope).update(more)
        self.cycle = QuickCycle.begun(self, is_kept=parser.should_keep_alive() and not self._is_leaving)
        self._start_asgi_task(self.cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """Hand a part of a body on."""
        self._num_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Note that a request is whole, unless it comes once more without its upgrade."""
        self._num_bytes = 0
        cycle = self.cycle
        if not self._is_upgrade and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def _begin_unusual(self) -> None:
        # What connects somewhere has no body that could get lost.
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_upgrade = True
            return
        super().on_headers_complete()
        # The request's task has not run yet, and looks its methods up when it does.
        QuickCycle.take_over(self.cycle)
        if self._is_leaving:
            self.cycle.keep_alive = False

    def _without_upgrade(self) -> bytes:
        """Return a head without its upgrade, which a server may ignore (RFC 9110, 7.8), to be read anew."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in _ABOUT_UPGRADE]
        self._is_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    def _check_head(self) -> None:
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise _HeadTooLargeError

    def _refuse(self, *, is_too_large: bool) -> None:
        """Answer what cannot be read, and close the connection."""
        self._unset_keepalive_if_required()
        if not is_too_large:
            self.logger.warning("a request that is no HTTP was refused")
        answer = _too_large() if is_too_large else _unreadable()
        if self._is_free():
            self.connections.discard(self)
            turn_deaf(self.transport, answer)
            return
        # Into an answer that is on its way nothing may be written.
        if not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()

    def _is_free(self) -> bool:
        """Whether no answer is on its way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if getattr(self.config, "reset_contextvars", False) or not isinstance(cycle, QuickCycle):
            super()._start_asgi_task(cycle, app)
            return
        cycle.start(app, self.loop, self.tasks)

    def on_response_complete(self) -> None:
        """Go on with what the client has sent meanwhile, else wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._is_idle = True
        self._wait(self.timeout_keep_alive)

    def ring(self) -> None:
        """Close a connection on which nothing came, or no whole head, for too long."""
        self.due_s = math.inf
        if self._is_idle or not self._num_bytes:
            self.timeout_keep_alive_handler()
        elif not self.transport.is_closing():
            self.connections.discard(self)
            turn_deaf(self.transport, _too_slow())

    def _wait(self, seconds: float) -> None:
        self.due_s = self._bell.loop.time() + seconds
        self._bell.add(self)

    def _unset_keepalive_if_required(self) -> None:
        self._is_idle = False
        if self.due_s != math.inf:
            self.due_s = math.inf
            self._bell.remove(self)

    def pause_writing(self) -> None:
        """Wait for the client, though not for ever."""
        super().pause_writing()
        self._stalled = Stalled(self.transport, self._send_s())
        self._stalled.begin()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._unstall()

    def _unstall(self) -> None:
        stalled, self._stalled = self._stalled, None
        if stalled is not None:
            stalled.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for it."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._unstall()
        self._is_lost = True
        watching, self._watching = self._watching, set()
        for tell in watching:
            tell()

    def _watch(self, tell: Tell) -> Unwatch:
        if self._is_lost:
            asyncio.get_running_loop().call_soon(tell)
            return _nothing
        self._watching.add(tell)
        return partial(self._watching.discard, tell)


class _HeadTooLargeError(Exception):
    pass


def _too_large() -> bytes:
    message = sentence(
        "the request's line and headers are too large",
        allowed=f"{MAX_HEAD_BYTES} bytes, in at most {MAX_HEADERS} headers",
        do="send fewer, or shorter ones",
    )
    return _last_answer(
        b"431 Request Header Fields Too Large", message, "invalid_request_error", "head_too_large"
    )


def _unreadable() -> bytes:
    message = sentence(
        "the request is no HTTP that can be read", allowed="HTTP/1.1 or HTTP/1.0", do="look at the client"
    )
    return _last_answer(b"400 Bad Request", message, "invalid_request_error", "no_http")


def _too_slow() -> bytes:
    message = sentence(
        "the request's line and headers did not come to their end in time",
        allowed=f"{HEAD_S:g} s",
        do="send them faster",
    )
    return _last_answer(b"408 Request Timeout", message, "timeout_error", "head_timeout")


def _last_answer(status: bytes, message: str, kind: str, code: str) -> bytes:
    """Return an answer after which the connection is closed, as it is written."""
    body = error_body(message, kind=kind, param=None, code=code)
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return b"HTTP/1.1 %b\r\n" % status + head + body


def _nothing() -> None:
    return


@lru_cache(maxsize=64)
def _cut(url: bytes) -> tuple[str, bytes, bytes]:
    """Return path, path as it came, and query of a URL, as uvicorn does; few URLs are met."""
    parsed = httptools.parse_url(url)
    raw: bytes = parsed.path
    path = raw.decode("ascii")
    return unquote(path) if "%" in path else path, raw, parsed.query or b""
