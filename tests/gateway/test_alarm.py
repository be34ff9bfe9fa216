"""An alarm ends a wait as `asyncio.timeout_at` would, whoever else cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from turnout.gateway.alarm import Alarm, Patience


async def wait(seconds: float, work: Callable[[], Awaitable[object]]) -> str:
    """Say how a wait ends, and hold the task to having no cancellation left that was the alarm's."""
    alarm = Alarm(seconds)
    try:
        await work()
        return "done"
    except asyncio.CancelledError:
        if alarm.is_cause():
            return "late"
        raise
    finally:
        alarm.stop()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_a_wait_ends_by_itself_or_by_its_alarm() -> None:
    async def test() -> None:
        assert await wait(5, lambda: asyncio.sleep(0)) == "done"
        assert await wait(0.01, lambda: asyncio.sleep(5)) == "late"
        assert await wait(-1, lambda: asyncio.sleep(5)) == "late"
        assert cancelling() == 0
        await asyncio.sleep(0.02)  # nothing rings afterwards

    asyncio.run(test())


def test_the_inner_of_two_is_told_apart_from_the_outer() -> None:
    async def test() -> None:
        assert await wait(5, lambda: wait(0.01, lambda: asyncio.sleep(5))) == "done"
        assert await wait(0.01, lambda: wait(5, lambda: asyncio.sleep(5))) == "late"
        assert await wait(0.01, lambda: wait(0.01, lambda: asyncio.sleep(5))) in ("done", "late")
        assert cancelling() == 0

    asyncio.run(test())


def test_a_cancellation_by_somebody_else_goes_through() -> None:
    async def test() -> None:
        task = asyncio.create_task(wait(5, lambda: asyncio.sleep(5)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def both() -> None:
            # The alarm rings while somebody cancels, too: then the cancellation wins.
            me = asyncio.current_task()
            assert me is not None
            asyncio.get_running_loop().call_later(0.01, me.cancel)
            await wait(0.01, lambda: asyncio.sleep(5))

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(both())

    asyncio.run(test())


def test_an_alarm_that_nobody_hears_is_taken_back() -> None:
    async def test() -> None:
        alarm = Alarm(-1)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert cancelling() == 1
        alarm.stop()
        assert cancelling() == 0

    asyncio.run(test())


async def bear(patience: Patience, work: Callable[[], Awaitable[object]]) -> str:
    """Say how a wait ends."""
    patience.begin()
    try:
        await work()
        return "done"
    except asyncio.CancelledError:
        if patience.is_cause():
            return "late"
        raise
    finally:
        patience.end()


def test_each_of_many_waits_may_last_as_long_and_one_timer_serves_all() -> None:
    async def test() -> None:
        patience, loop = Patience(0.1), asyncio.get_running_loop()
        timers: list[float] = []
        call_at = loop.call_at

        def watched(when: float, *args: object, **kwargs: object) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, *args, **kwargs)  # type: ignore[arg-type]

        loop.call_at = watched  # type: ignore[method-assign]
        for _ in range(200):
            assert await bear(patience, lambda: asyncio.sleep(0)) == "done"
        assert len(timers) < 20, "two hundred waits set a handful of timers"
        loop.call_at = call_at  # type: ignore[method-assign]
        began_s = loop.time()
        for _ in range(4):
            assert await bear(patience, lambda: asyncio.sleep(0.04)) == "done", "together they last longer"
        assert loop.time() - began_s > 0.1
        assert await bear(patience, lambda: asyncio.sleep(5)) == "late"
        assert await bear(patience, lambda: asyncio.sleep(5)) == "late", "and once more"
        await asyncio.sleep(0.15)  # between two waits nothing rings
        assert await bear(patience, lambda: asyncio.sleep(0)) == "done"
        patience.stop()
        patience.stop()
        assert cancelling() == 0

    asyncio.run(test())


def test_patience_is_with_whoever_waits_and_others_cancel_as_ever() -> None:
    async def test() -> None:
        patience = Patience(0.05)
        task = asyncio.create_task(bear(patience, lambda: asyncio.sleep(5)))
        assert await task == "late"
        assert await bear(patience, lambda: asyncio.sleep(5)) == "late", "another task than before"
        task = asyncio.create_task(bear(patience, lambda: asyncio.sleep(5)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        patience.stop()
        assert cancelling() == 0

    asyncio.run(test())
