"""This module holds tasks that go on when their request has been answered; they end with the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, final


@final
class Errands:
    """The tasks of a gateway, under all its configurations."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def begin(self, errand: Callable[[], Coroutine[Any, Any, None]], give_up: Callable[[], None]) -> None:
        """Begin a task, which ends its own books when it is cancelled; `give_up` where there is no time."""
        if self._is_closed:
            give_up()
            return
        task = asyncio.create_task(errand())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what runs, and wait until it has ended."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
