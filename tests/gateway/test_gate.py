"""Bounded places, a bounded queue, and nothing lost when those who wait go away."""

from __future__ import annotations

import asyncio

import pytest

from turnout.gateway.config import ServerSettings
from turnout.gateway.errors import ApiError
from turnout.gateway.gate import Gate


def made(max_running: int = 2, max_queued: int = 2, queue_s: float = 5.0) -> Gate:
    settings = ServerSettings(max_running=max_running, max_queued=max_queued, queue_s=queue_s)
    return Gate(settings=settings)


def test_places_are_given_first_come_first_served() -> None:
    async def main() -> list[int]:
        gate, order = made(max_running=1, max_queued=9), []

        async def one(number: int) -> None:
            await gate.enter()
            order.append(number)
            await asyncio.sleep(0)
            gate.leave()

        await asyncio.gather(*(one(number) for number in range(9)))
        assert (gate.num_running, gate.num_waiting) == (0, 0)
        return order

    assert asyncio.run(main()) == list(range(9))


def test_beyond_the_queue_the_answer_is_a_503_at_once() -> None:
    async def main() -> ApiError:
        gate = made()
        await gate.enter()
        await gate.enter()
        waiting = [asyncio.create_task(gate.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as info:
            await gate.enter()
        gate.leave()
        gate.leave()
        await asyncio.gather(*waiting)
        assert (gate.num_running, gate.num_waiting) == (2, 0)
        return info.value

    error = asyncio.run(main())
    assert (error.status, error.code) == (503, "overloaded")
    assert error.headers == [(b"retry-after", b"1")]


def test_who_waits_too_long_is_refused_and_leaves_the_queue() -> None:
    async def main() -> None:
        gate = made(max_running=1, queue_s=0.02)
        await gate.enter()
        with pytest.raises(ApiError, match=r"no place within 0\.02 s"):
            await gate.enter()
        assert (gate.num_running, gate.num_waiting) == (1, 0)
        gate.leave()
        await gate.enter()
        assert gate.num_running == 1

    asyncio.run(main())


def test_a_place_given_to_somebody_who_has_just_left_goes_on() -> None:
    async def main() -> None:
        gate = made(max_running=1)
        await gate.enter()
        first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        gate.leave()
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.exception() is None
        assert (gate.num_running, gate.num_waiting) == (1, 0)
        gate.leave()
        assert gate.num_running == 0

    asyncio.run(main())
