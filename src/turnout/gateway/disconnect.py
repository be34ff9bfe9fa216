"""This module ends a request's work when its client leaves, from before the first byte to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self, final

from turnout.gateway.attended import LEFT, Unwatch, Watch

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


CANCELLED_IS_GONE = "turnout.cancelled_is_gone"
"""Key of a scope whose server cancels a request when its client leaves, as Ray's proxy does."""


class ClientGoneError(Exception):
    """The client closed its connection; nobody is left to be told anything."""


@final
class Attended:
    """A block that runs only while the client is there: `with Attended(receive, scope):`.

    The block is cancelled the moment the client leaves, and `ClientGoneError` is raised in its place. It
    works like `asyncio.timeout`, with a closed connection instead of a clock.
    """

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self._receive = receive
        self._watch: Watch | None = scope.get(LEFT)
        self._unwatch: Unwatch | None = None
        self._is_gone = False
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._watch is not None:
            self._unwatch = self._watch(self._leave)
        else:
            watcher = asyncio.create_task(self._wait())
            watcher.add_done_callback(self._end)
            self._unwatch = watcher.cancel
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # What takes it back knows this block: kept, the two would wait for a search for garbage.
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        if self._is_gone and task is not None:
            task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGoneError from error

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _end(self, watcher: asyncio.Task[None]) -> None:
        if not watcher.cancelled():
            watcher.exception()
            self._leave()

    def _leave(self) -> None:
        """Cancel the block; after its end nobody is there to be cancelled."""
        if self._task is not None:
            self._is_gone = True
            self._task.cancel()
