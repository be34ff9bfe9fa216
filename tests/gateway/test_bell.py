"""Many limits have one timer, and each is kept all the same."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from turnout.gateway.alarm import Alarm
from turnout.gateway.bell import Bell, bell_of

RUNNERS: tuple[Callable[[Any], Any], ...] = (asyncio.run, uvloop.run)


class One:
    def __init__(self, due_s: float, told: list[float]) -> None:
        self.due_s = due_s
        self.told = told

    def ring(self) -> None:
        self.told.append(asyncio.get_running_loop().time())


@pytest.mark.parametrize("run", RUNNERS)
def test_each_is_called_once_and_at_its_time(run: Callable[[Any], Any]) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        bell, told = bell_of(loop), list[float]()
        began_s = loop.time()
        due = [began_s + late_s for late_s in (0.09, 0.03, 0.06, -1.0)]
        for due_s in due:
            bell.add(One(due_s, told))
        left_out = One(began_s + 0.04, told)
        bell.add(left_out)
        bell.remove(left_out)
        bell.remove(left_out)
        await asyncio.sleep(0.2)
        assert len(told) == 4
        for at_s, due_s in zip(told, sorted(due), strict=True):
            assert max(due_s, began_s) - 0.002 <= at_s < due_s + 1.1

    run(test())


def test_who_moves_its_time_is_called_then_and_who_has_none_is_not() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        bell, told = bell_of(loop), list[float]()
        moved, never = One(loop.time() + 0.02, told), One(math.inf, told)
        bell.add(moved)
        bell.add(never)
        moved.due_s = due_s = loop.time() + 0.08
        await asyncio.sleep(0.05)
        assert told == []
        await asyncio.sleep(0.06)
        assert len(told) == 1
        assert told[0] >= due_s - 0.002
        never.due_s = loop.time() + 0.01
        bell.add(never)
        await asyncio.sleep(0.05)
        assert len(told) == 2

    asyncio.run(test())


def test_a_thousand_limits_set_a_handful_of_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_at = loop.call_at

        def watched(when: float, *args: object, **kwargs: object) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_at", watched)
        for number in range(1000):
            outer, inner = Alarm(600), Alarm(60 + number / 1000)
            inner.stop()
            outer.stop()
        assert 1 <= len(timers) <= 3

    asyncio.run(test())


def test_each_loop_has_its_own() -> None:
    async def mine() -> Bell:
        bell = bell_of(asyncio.get_running_loop())
        assert bell is bell_of(asyncio.get_running_loop())
        return bell

    assert asyncio.run(mine()) is not asyncio.run(mine())
