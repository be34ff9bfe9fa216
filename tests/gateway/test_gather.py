"""Requests of some turns of the loop are decided together, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.gateway.pool import LARGE, SMALL, Reader
from turnout.core import Goal, Query
from turnout.datasets import load
from turnout.gateway import gather as gather_module
from turnout.gateway.errors import ApiError
from turnout.gateway.gather import Gatherer
from turnout.gateway.select import Selection, Selector
from turnout.gateway.wire import ChatRequest, parse_chat
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter, RidgeRouter


class Counting:
    """A deployment that counts how it is asked."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._deployment, name)

    def consider(self, queries: list[Query], **settings: Any) -> Any:
        """Do what the deployment does."""
        self.sizes.append(len(queries))
        return self._deployment.consider(queries, **settings)


def selector_of(deployment: Deployment, **settings: Any) -> tuple[Selector, Counting]:
    counting = Counting(deployment)
    made = Selector(
        deployment=counting,  # type: ignore[arg-type]
        alias="auto",
        goal=None,
        rng=np.random.default_rng(0),
        **settings,
    )
    return made, counting


@pytest.fixture(scope="module")
def ridge() -> Deployment:
    table = load("reason18")
    table = table.where(np.arange(len(table.queries)) < 200)
    router, fallback = RidgeRouter().fit(table), BestSingleRouter().fit(table)
    return Deployment(router=router, fallback=fallback, policy=Best(), goal=Goal(usd_per_quality=0.01))


def request(text: str, **fields: Any) -> ChatRequest:
    asked = parse_chat(b'{"model": "auto", "messages": [{"role": "user", "content": "x"}]}')
    return msgspec.structs.replace(asked, text=text, **fields)


async def choose_all(
    selector: Selector, requests: list[ChatRequest], goals: list[Goal | None] | None = None
) -> list[Selection | BaseException]:
    gatherer = Gatherer()
    goals = [None] * len(requests) if goals is None else goals
    calls = [
        gatherer.choose(selector, one, one.query(str(at)), goal, None)
        for at, (one, goal) in enumerate(zip(requests, goals, strict=True))
    ]
    return await asyncio.gather(*calls, return_exceptions=True)


def test_what_comes_together_is_decided_by_one_call_and_as_it_would_be_alone(ridge: Deployment) -> None:
    requests = [request(query.words) for query in load("reason18").queries[:40]]
    selector, counting = selector_of(ridge)
    together = asyncio.run(choose_all(selector, requests))
    assert counting.sizes == [40]
    for at, (one, found) in enumerate(zip(requests, together, strict=True)):
        assert isinstance(found, Selection)
        alone = selector.choose(one, one.query(str(at)), None)
        assert (found.ranked[0], found.reason, found.propensity) == (alone.ranked[0], alone.reason, 1.0)
        assert (found.goal, found.fingerprint, found.price) == (alone.goal, alone.fingerprint, alone.price)
        assert found.expected_quality == pytest.approx(alone.expected_quality, rel=1e-5)
        assert found.expected_cost_usd == pytest.approx(alone.expected_cost_usd, rel=1e-4)
        assert found.estimate is not None
        assert found.estimate.quality_QM[found.row].max() >= found.expected_quality
    assert len({found.ranked[0] for found in together if isinstance(found, Selection)}) > 1


def test_one_alone_is_not_kept_waiting_for_others(ridge: Deployment) -> None:
    selector, counting = selector_of(ridge)

    async def test() -> None:
        gatherer = Gatherer()
        for at in range(3):
            one = request("17 * 23?")
            turns = 0
            call = asyncio.ensure_future(gatherer.choose(selector, one, one.query(str(at)), None, None))
            while not call.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns <= 4

    asyncio.run(test())
    assert counting.sizes == [1, 1, 1]


def sizes_of(ridge: Deployment, coming: list[int], *, streams_from: int = 1_000) -> list[int]:
    """Return how many were decided at a time, where so many come in each turn of the loop."""
    selector, counting = selector_of(ridge)

    async def test() -> None:
        gatherer, calls = Gatherer(), list[Any]()
        for num in coming:
            for _ in range(num):
                one = request("17 * 23?", is_stream=len(calls) >= streams_from)
                calls.append(gatherer.choose(selector, one, one.query(str(len(calls))), None, None))
            await asyncio.sleep(0)
        found = await asyncio.gather(*calls)
        assert [one.ranked[0].name for one in found] == [found[0].ranked[0].name] * sum(coming)

    asyncio.run(test())
    return counting.sizes


@pytest.mark.parametrize(
    ("coming", "sizes"),
    [
        ([4, 4, 4, 4, 4, 4, 4, 4], [16, 16]),
        ([4, 0, 4, 0], [4, 4]),
        ([4, 1, 4, 1], [5, 5]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),
        ([40, 40, 40], [80, 40]),
        ([100, 3], [100, 3]),
    ],
)
def test_several_that_come_together_wait_while_more_come(
    ridge: Deployment, coming: list[int], sizes: list[int]
) -> None:
    assert sizes_of(ridge, coming) == sizes


def test_a_stream_waits_for_nobody(ridge: Deployment) -> None:
    assert sizes_of(ridge, [4, 4, 4, 4], streams_from=0) == [4, 4, 4, 4]
    assert sizes_of(ridge, [4, 4, 4, 4], streams_from=5) == [8, 4, 4]


def test_every_goal_and_every_selector_gets_its_own(ridge: Deployment) -> None:
    selector, counting = selector_of(ridge)
    cheap = Goal(usd_per_quality=1e-6)
    requests = [request(query.words) for query in load("reason18").queries[:6]]
    found = asyncio.run(choose_all(selector, requests, [None, cheap] * 3))
    assert sorted(counting.sizes) == [3, 3]
    assert [one.goal for one in found if isinstance(one, Selection)] == [
        ridge.goal.describe(),
        cheap.describe(),
    ] * 3


def test_an_error_is_the_error_of_one() -> None:
    router = Reader(candidates=(SMALL, LARGE))
    deployment = Deployment(router=router, fallback=router, policy=Best(), goal=Goal())
    selector, counting = selector_of(deployment)
    hopeless = request("hard", needs=frozenset({"audio"}))
    found = asyncio.run(choose_all(selector, [request("easy"), hopeless, request("hard")]))
    assert [type(one) for one in found] == [Selection, ApiError, Selection]
    assert isinstance(found[1], ApiError)
    assert found[1].code == "no_feasible_candidate"
    assert [one.ranked[0].name for one in found if isinstance(one, Selection)] == ["small", "large"]
    assert counting.sizes == [3, 1, 1, 1]


def test_a_turn_is_bounded_and_who_left_is_not_decided(
    ridge: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather_module, "MAX_CHARS", 250)
    selector, counting = selector_of(ridge)

    async def test() -> None:
        gatherer = Gatherer()
        calls = [
            asyncio.ensure_future(gatherer.choose(selector, one, one.query(str(at)), None, None))
            for at, one in enumerate([request("x" * 100)] * 7)
        ]
        await asyncio.sleep(0)
        calls[4].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(one).__name__ for one in found].count("Selection") == 6

    asyncio.run(test())
    assert counting.sizes == [3, 2, 1]
