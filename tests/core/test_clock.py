"""Time is an argument: one clock is the machine's, the other moves when told to."""

from __future__ import annotations

import math
import time

import pytest

from turnout.core.clock import Clock, ManualClock, SystemClock
from turnout.core.errors import InputError


def test_the_system_clock_tells_the_time_of_day() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.now_s() - time.time()) < 5.0
    first, second = clock.monotonic_s(), clock.monotonic_s()
    assert second >= first


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock: Clock = ManualClock(start_s=10.0)
    assert (clock.now_s(), clock.monotonic_s()) == (10.0, 10.0)
    assert isinstance(clock, ManualClock)
    clock.advance(2.5)
    clock.advance(0)
    assert (clock.now_s(), clock.monotonic_s()) == (12.5, 12.5)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, "1"])
def test_a_manual_clock_never_runs_backwards(seconds: float) -> None:
    clock = ManualClock()
    with pytest.raises(
        InputError, match=r"ManualClock.advance: seconds; allowed: a number in \[0, inf\]; got: "
    ):
        clock.advance(seconds)
    assert clock.now_s() == 0.0
