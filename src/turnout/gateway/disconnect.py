"""This module ends a request's work when its client leaves, from before the first byte to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self, final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGoneError(Exception):
    """The client closed its connection; nobody is left to be told anything."""


@final
class Attended:
    """A block that runs only while the client is there: `async with Attended(receive):`.

    The block is cancelled the moment the client leaves, and `ClientGoneError` is raised in its place. It
    works like `asyncio.timeout`, with a closed connection instead of a clock.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch())
        self._watcher.add_done_callback(self._leave)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.remove_done_callback(self._leave)
            self._watcher.cancel()
        if self._is_gone and self._task is not None:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGoneError from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _leave(self, watcher: asyncio.Task[None]) -> None:
        if not watcher.cancelled() and self._task is not None:
            watcher.exception()
            self._is_gone = True
            self._task.cancel()
