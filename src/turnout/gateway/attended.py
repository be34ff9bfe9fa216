"""This module is uvicorn's HTTP connection, which says at once when its client has left.

ASGI tells it to whoever waits for the next message, which takes a task beside every request. A request that
finds `LEFT` in its scope is called back instead; under another server it waits as ASGI has it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnout.gateway.bell import bell_of
from turnout.gateway.quick_cycle import QuickCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, HTTPScope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LEFT = "turnout.left"
"""Where a request finds in its scope whom to ask for a call when its client leaves."""

Tell = Callable[[], None]
Unwatch = Callable[[], object]
Watch = Callable[[Tell], Unwatch]
"""Takes what to call; returns what takes it back."""


@final
class AttendedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Handlers that somebody puts on the logger, as pytest does, ask for no log.
        self.access_log = self.access_log and self.config.access_log
        self._watching = set[Tell]()
        self._is_lost = False
        self._bell = bell_of(self.loop)
        self.due_s = math.inf
        """When the connection has been idle for too long; infinity while it is not idle."""

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

    def on_headers_complete(self) -> None:
        """Begin the request; its answer is written more quickly."""
        parser = self.parser
        before: RequestResponseCycle | None = self.cycle
        is_usual = parser.get_http_version() == "1.1" and not parser.should_upgrade()
        is_first = before is None or before.response_complete
        if not is_usual or not is_first or self.limit_concurrency is not None or self.root_path:
            super().on_headers_complete()
            # The request's task has not run yet, and looks its methods up when it does.
            QuickCycle.take_over(self.cycle)
            return
        path, raw_path, query = _cut(self.url)
        more = {
            "method": parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
        }
        cast("dict[str, Any]", self.scope).update(more)
        self.cycle = QuickCycle.begun(self, is_kept=parser.should_keep_alive())
        self._start_asgi_task(self.cycle, self.app)

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
        self.due_s = self._bell.loop.time() + self.timeout_keep_alive
        self._bell.add(self)

    def ring(self) -> None:
        """Close a connection that was idle for too long."""
        self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        if self.due_s != math.inf:
            self.due_s = math.inf
            self._bell.remove(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for it."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
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


def _nothing() -> None:
    return


@lru_cache(maxsize=64)
def _cut(url: bytes) -> tuple[str, bytes, bytes]:
    """Return path, path as it came, and query of a URL, as uvicorn does; few URLs are met."""
    parsed = httptools.parse_url(url)
    raw: bytes = parsed.path
    path = raw.decode("ascii")
    return unquote(path) if "%" in path else path, raw, parsed.query or b""
