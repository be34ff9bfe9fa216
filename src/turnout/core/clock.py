"""This module defines time as an argument: nothing below the gateway reads a clock of its own."""

from __future__ import annotations

import time
from typing import Protocol

from turnout.core.validation import check_number


class Clock(Protocol):
    """Anything that tells the time in seconds."""

    def now_s(self) -> float:
        """Return seconds since the epoch."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now_s(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards."""
        return time.perf_counter()


class ManualClock:
    """A clock that moves only when told to; for simulations and tests."""

    def __init__(self, *, start_s: float = 0.0) -> None:
        self._now_s = check_number("ManualClock.start_s", start_s)

    def now_s(self) -> float:
        """Return the time that was set."""
        return self._now_s

    def monotonic_s(self) -> float:
        """Return the time that was set."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds` (not negative)."""
        self._now_s += check_number("ManualClock.advance: seconds", seconds, low=0.0)
