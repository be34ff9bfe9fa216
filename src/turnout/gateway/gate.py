"""This module bounds how many requests are served at once, and how many may wait for a place."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import final

from turnout.core.errors import sentence
from turnout.gateway.config import ServerSettings
from turnout.gateway.errors import ApiError


@final
class Gate:
    """A bounded number of places, and a bounded queue before them, first come first served.

    Parameters
    ----------
    settings:
        `max_running`, `max_queued`, `queue_s`.
    """

    def __init__(self, *, settings: ServerSettings) -> None:
        self.settings = settings
        self.num_running = 0
        self.is_leaving = False
        """Whether the gateway is about to end, so that nobody should be sent here any more."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def num_waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def check(self) -> None:
        """Raise `ApiError` (503) where nobody could even wait: then a body need not be read."""
        if self.num_running >= self.settings.max_running and len(self._waiting) >= self.settings.max_queued:
            raise self._refusal(f"{len(self._waiting)} requests wait already")

    async def enter(self) -> None:
        """Take a place, at once or after a wait; raises `ApiError` (503) where there is none in time.

        Whoever entered must `leave`; whoever was refused must not.
        """
        if self.num_running < self.settings.max_running and not self._waiting:
            self.num_running += 1
            return
        self.check()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self.settings.queue_s):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise self._refusal(f"no place within {self.settings.queue_s:g} s") from None
        except BaseException:
            self._give_up(turn)
            raise

    def leave(self) -> None:
        """Give the place to the next who waits, or free it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.num_running -= 1

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        """Step out of the queue; one that was called in the same instant passes its place on."""
        if turn.done() and not turn.cancelled():
            self.leave()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _refusal(self, got: str) -> ApiError:
        message = sentence(
            "the gateway has as many requests as it may serve",
            allowed=f"{self.settings.max_running} at once and {self.settings.max_queued} that wait",
            got=got,
            do="ask again later, add workers, or raise server.max_running",
        )
        headers = [(b"retry-after", b"1")]
        return ApiError(503, message, code="overloaded", kind="server_error", headers=headers)
