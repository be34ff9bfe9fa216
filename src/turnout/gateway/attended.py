"""This module is uvicorn's HTTP connection, which says at once when its client has left.

ASGI tells it to whoever waits for the next message, which takes a task beside every request. A request that
finds `LEFT` in its scope is called back instead; under another server it waits as ASGI has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast, final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnout.gateway.quick_cycle import QuickCycle

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
        self._watching: dict[int, Tell] = {}
        self._is_lost = False
        self._serial = 0

    def on_message_begin(self) -> None:
        """Let the request be told."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[LEFT] = self._watch

    def on_headers_complete(self) -> None:
        """Begin the request; its answer is written more quickly."""
        super().on_headers_complete()
        # The request's task has not run yet, and looks its methods up when it does.
        QuickCycle.take_over(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for it."""
        super().connection_lost(exc)
        self._is_lost = True
        watching, self._watching = self._watching, {}
        for tell in watching.values():
            tell()

    def _watch(self, tell: Tell) -> Unwatch:
        if self._is_lost:
            asyncio.get_running_loop().call_soon(tell)
            return _nothing
        self._serial += 1
        number = self._serial
        self._watching[number] = tell
        return lambda: self._unwatch(number)

    def _unwatch(self, number: int) -> None:
        self._watching.pop(number, None)


def _nothing() -> None:
    return
