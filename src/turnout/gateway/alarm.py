"""This module ends a wait at a time: what `asyncio.timeout_at` does, at a third of its cost.

    alarm = Alarm(seconds)
    try:
        found = await wait()
    except asyncio.CancelledError:
        if alarm.is_cause():
            ...  # it was the alarm, and nobody else
        raise
    finally:
        alarm.stop()

Two of them stand on the path of every request. A `Patience` bounds many waits in a row, each by the same
time: a stream waits for every event. None of them has a timer of its own (`turnout.gateway.bell`).
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, final

from turnout.gateway.bell import Bell, bell_of


@final
class Alarm:
    """Cancels the task that sets it, after a time.

    Parameters
    ----------
    seconds:
        Until it rings.
    """

    __slots__ = ("_bell", "_has_rung", "_num_before", "_task", "due_s")

    def __init__(self, seconds: float) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("an alarm is set inside a task")
        loop = task.get_loop()
        self.due_s = loop.time() + seconds
        self._task = task
        self._num_before = task.cancelling()
        self._has_rung = False
        self._bell = bell_of(loop)
        self._bell.add(self)

    def hasten(self, when_s: float) -> None:
        """Ring at a time, if that is the earlier one."""
        if when_s < self.due_s:
            self.due_s = when_s
            self._bell.add(self)

    def is_cause(self) -> bool:
        """Whether a cancellation that came is the alarm's alone, which is then taken back; asked once."""
        if not self._has_rung:
            return False
        self._has_rung = False
        return self._task.uncancel() <= self._num_before

    def stop(self) -> None:
        """Ring no more; one that rang without being heard is taken back."""
        self._bell.remove(self)
        if self._has_rung:
            self._has_rung = False
            self._task.uncancel()

    def ring(self) -> None:
        """Cancel the task."""
        self._has_rung = True
        self._task.cancel()


@final
class Patience:
    """Cancels the task that waits where one of many waits lasts too long; there is one wait at a time.

    Parameters
    ----------
    limit_s:
        The longest wait, in seconds.
    """

    __slots__ = ("_bell", "_has_rung", "_limit_s", "_num_before", "_task", "due_s")

    def __init__(self, limit_s: float) -> None:
        self.due_s = math.inf
        self._bell: Bell = bell_of(asyncio.get_running_loop())
        self._limit_s = limit_s
        self._has_rung = False
        self._task: asyncio.Task[Any] | None = None
        self._num_before = 0

    def begin(self) -> None:
        """Begin to wait, in a task."""
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("who waits is a task")
        self._num_before = task.cancelling()
        self.due_s = self._bell.loop.time() + self._limit_s
        self._bell.add(self)

    def go_on(self) -> None:
        """Begin the time of a wait anew."""
        self.due_s = self._bell.loop.time() + self._limit_s

    def end(self) -> None:
        """Wait no more; a cancellation that nobody has heard is taken back."""
        self.due_s = math.inf
        self._take_back()

    def is_cause(self) -> bool:
        """Whether a cancellation that came is its own alone, which is then taken back; asked once."""
        return self._has_rung and self._take_back() <= self._num_before

    def stop(self) -> None:
        """Ring no more; may be called twice."""
        self._bell.remove(self)

    def ring(self) -> None:
        """Cancel the task whose wait has lasted too long."""
        if self._task is not None:
            self.due_s = math.inf
            self._has_rung = True
            self._task.cancel()

    def _take_back(self) -> int:
        if not self._has_rung or self._task is None:
            return 0
        self._has_rung = False
        return self._task.uncancel()
