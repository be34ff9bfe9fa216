"""This module calls back whoever waits for a time, by one timer of the event loop for all of them.

A request sets several limits and keeps nearly all of them: a timer each, set and taken back, costs more than
what the limit is for. Here a limit is a place in a set, and the timer looks at all of them when the first may
be due.
"""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Protocol, final

LEAST_S = 0.005
"""Between two looks: with thousands that wait, looking must not be all that is done."""


class Waiting(Protocol):
    """Who is called at a time; kept by identity."""

    due_s: float
    """When, by the loop's clock; may be moved to a later time while it waits, infinity for never."""

    def ring(self) -> None:
        """Take the call; whoever wants another one asks again."""
        ...


@final
class Bell:
    """The one timer of an event loop.

    Parameters
    ----------
    loop:
        Whose clock it goes by.
    """

    __slots__ = ("_handle", "_look_s", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: set[Waiting] = set()
        self._look_s = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def add(self, one: Waiting) -> None:
        """Call somebody at its time."""
        self._waiting.add(one)
        if one.due_s < self._look_s:
            self._set(one.due_s)

    def remove(self, one: Waiting) -> None:
        """Call somebody no more, which may be said twice."""
        self._waiting.discard(one)

    def _set(self, look_s: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._look_s = look_s
        self._handle = self.loop.call_at(look_s, self._look)

    def _look(self) -> None:
        """Call whose time it is, and look again when the next may be due."""
        self._handle, self._look_s = None, math.inf
        now_s = self.loop.time()
        for one in [one for one in self._waiting if one.due_s <= now_s]:
            self._waiting.discard(one)
            one.ring()
        first_s = min([one.due_s for one in self._waiting], default=math.inf)
        if first_s < self._look_s:
            self._set(max(first_s, now_s + LEAST_S))


class _Here(threading.local):
    bell: Bell | None = None


_here = _Here()


def bell_of(loop: asyncio.AbstractEventLoop) -> Bell:
    """Return the bell of the loop that runs in this thread."""
    bell = _here.bell
    if bell is None or bell.loop is not loop:
        bell = _here.bell = Bell(loop)
    return bell
