"""This module ends a wait at a time: what `asyncio.timeout_at` does, at a third of its cost.

    alarm = Alarm(when_s)
    try:
        found = await wait()
    except asyncio.CancelledError:
        if alarm.is_cause():
            ...  # it was the alarm, and nobody else
        raise
    finally:
        alarm.stop()

Two of them stand on the path of every request.
"""

from __future__ import annotations

import asyncio
from typing import Any, final


@final
class Alarm:
    """Cancels the task that sets it, at a time.

    Parameters
    ----------
    when_s:
        By the event loop's clock.
    """

    __slots__ = ("_handle", "_has_rung", "_num_before", "_task")

    def __init__(self, when_s: float) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("an alarm is set inside a task")
        self._task = task
        self._num_before = task.cancelling()
        self._has_rung = False
        self._handle = task.get_loop().call_at(when_s, self._ring)

    def is_cause(self) -> bool:
        """Whether a cancellation that came is the alarm's alone, which is then taken back; asked once."""
        if not self._has_rung:
            return False
        self._has_rung = False
        return self._task.uncancel() <= self._num_before

    def stop(self) -> None:
        """Ring no more; one that rang without being heard is taken back."""
        self._handle.cancel()
        if self._has_rung:
            self._has_rung = False
            self._task.uncancel()

    def _ring(self) -> None:
        self._has_rung = True
        self._task.cancel()
