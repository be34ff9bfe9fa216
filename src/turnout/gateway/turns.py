"""This module does steps on a SQLite file in their order, and stops nobody while that file is locked.

A step is some tens of microseconds and is done at once, on the event loop. Where the file is locked (by
another worker in its step, by an administrator's open transaction, by a process that was stopped in one),
SQLite would wait, and every stream of the gateway with it. So it never waits: the step is queued and tried
again from the event loop, and whatever comes after it queues behind it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, final

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError

logger = logging.getLogger(__name__)

WAIT_S = 0.5
"""Longest wait of a request for its step."""

_FIRST_S = 0.0005
_LONGEST_S = 0.05
_TOLD_AFTER = 40
"""Tries in vain, about 1.5 seconds, after which the log is told."""

_T = TypeVar("_T")


@final
class Turns:
    """The steps of one connection.

    Parameters
    ----------
    connection:
        An open file in autocommit mode; from now on it fails at once where the file is locked.
    what:
        What the log calls the file.
    wait_s:
        Longest wait of `do`.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, what: str = "the file of keys", wait_s: float = WAIT_S
    ) -> None:
        connection.execute("PRAGMA busy_timeout = 0")
        self.connection = connection
        self.what = what
        self.wait_s = wait_s
        self._steps: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """How many steps wait for their turn."""
        return len(self._steps)

    async def do(self, step: Callable[[], _T]) -> _T:
        """Return what a step returns; raises `ApiError` (503) where its turn does not come in time.

        A step that fails changes nothing: it is a transaction, or a statement.
        """
        if not self._steps:
            try:
                return step()
            except sqlite3.OperationalError:
                pass  # Tried again below: most often another worker is in its step.
        future = self._queue(step)
        try:
            async with asyncio.timeout(self.wait_s):
                return await future  # type: ignore[no-any-return]
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                return future.result()  # type: ignore[no-any-return]
            raise _locked() from error

    def later(self, step: Callable[[], None]) -> None:
        """Do a step now or as soon as its turn comes, however long that takes; never waits."""
        if not self._steps:
            try:
                step()
                return
            except sqlite3.OperationalError:
                pass
        self._queue(step)

    async def finish(self) -> None:
        """Wait until every step is done."""
        if self._task is not None:
            try:
                await asyncio.shield(self._task)
            except asyncio.CancelledError:
                logger.warning(
                    "%d steps on %s were not done: it stayed locked to the end, and what they would have "
                    "given back stays reserved",
                    len(self._steps),
                    self.what,
                )
                self._task.cancel()
                raise

    def _queue(self, step: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._steps.append((step, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        wait_s, num_vain = _FIRST_S, 0
        while self._steps:
            step, future = self._steps[0]
            if not future.done():  # It is cancelled where a request waits no longer.
                try:
                    result = step()
                except sqlite3.OperationalError as error:
                    num_vain += 1
                    if num_vain == _TOLD_AFTER:
                        logger.warning("%s cannot be written, and is tried again: %s", self.what, error)
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_S)
                    continue
                except Exception as error:  # noqa: BLE001 (whoever waits for the step is told)
                    future.set_exception(error)
                else:
                    future.set_result(result)
            self._steps.popleft()
            wait_s, num_vain = _FIRST_S, 0
        self._task = None


def _locked() -> ApiError:
    message = sentence(
        "the file of keys cannot be read or written now: another process has locked it, or its disk is full",
        allowed=f"a turn within {WAIT_S:g} seconds",
        do="ask again; see who holds auth.path open",
    )
    headers = [(b"retry-after", b"1")]
    return ApiError(503, message, code="limits_unavailable", kind="server_error", headers=headers)
