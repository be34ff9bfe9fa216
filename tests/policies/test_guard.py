from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.policies.outcomes import make_guard
from turnout.core import Goal
from turnout.policies import Guard, measure_pairs

FLOOR = Goal(quality_floor=0.97)


def test_a_floor_opens_for_money_saved_and_shuts_without() -> None:
    guard = make_guard(np.random.default_rng(0), 400)
    cheaper = guard.judge(FLOOR, option=2, price=10.0, single=0, best=0)
    assert cheaper.is_open
    assert cheaper.unit == "usd per 1,000"
    assert 0 < cheaper.low < cheaper.gain
    as_dear = guard.judge(FLOOR, option=0, price=0.0, single=0, best=0)
    assert not as_dear.is_open


def test_a_floor_that_this_split_refutes_shuts_it_whatever_is_saved() -> None:
    guard = make_guard(np.random.default_rng(1), 400)
    verdict = guard.judge(FLOOR, option=4, price=np.inf, single=0, best=0)
    assert verdict.low > 0
    assert not verdict.is_open
    assert "but the floor is not kept; 400 held-out" in verdict.describe()


def test_a_cap_opens_for_quality_gained() -> None:
    guard = make_guard(np.random.default_rng(2), 1000)
    assert guard.judge(Goal(usd_per_1k=9.0), option=0, price=0.0, single=1, best=0).is_open
    assert not guard.judge(Goal(usd_per_1k=9.0), option=3, price=100.0, single=1, best=0).is_open
    assert not guard.judge(Goal(usd_per_1k=3.0), option=0, price=0.0, single=1, best=0).is_open


def test_a_router_equal_to_the_single_is_let_through_at_most_at_the_stated_rate() -> None:
    rng = np.random.default_rng(3)
    opened = []
    for _ in range(1000):
        single_Q = rng.random((1, 200))
        router_Q = single_Q + rng.normal(0, 0.3, (1, 200))
        pairs = measure_pairs(router_Q, np.zeros((1, 200)), single_Q, np.zeros((1, 200)))
        guard = Guard(options=pairs, confidence=0.95)
        opened.append(guard.judge(Goal(), option=0, price=0.0, single=0, best=0).is_open)
    assert np.mean(opened) <= 0.05 + 0.02


def test_a_router_that_always_takes_the_single_stays_shut() -> None:
    single_Q, usd_Q = np.random.default_rng(4).random((1, 100)), np.ones((1, 100))
    guard = Guard(options=measure_pairs(single_Q, usd_Q, single_Q, usd_Q), confidence=0.95)
    for goal in (Goal(), FLOOR, Goal(usd_per_1k=5000.0), Goal(usd_per_quality=1.0)):
        assert not guard.judge(goal, option=0, price=goal.fixed_price or 0.0, single=0, best=0).is_open


def test_a_floor_without_costs_is_judged_by_quality() -> None:
    rng = np.random.default_rng(5)
    single_Q = rng.random((1, 300))
    better_Q, nothing_Q = single_Q + 0.1 + rng.normal(0, 0.01, (1, 300)), np.full((1, 300), np.nan)
    guard = Guard(options=measure_pairs(better_Q, nothing_Q, single_Q, nothing_Q), confidence=0.95)
    verdict = guard.judge(FLOOR, option=0, price=0.0, single=0, best=0)
    assert verdict.is_open
    assert verdict.unit == "quality"


def test_a_verdict_on_few_queries_says_that_they_are_too_few() -> None:
    verdict = make_guard(np.random.default_rng(6), 12).judge(FLOOR, option=2, price=10.0, single=0, best=0)
    assert "12 held-out queries: too few queries for a bound" in verdict.describe()
    assert "inf" not in verdict.describe()
    many = make_guard(np.random.default_rng(6), 400).judge(FLOOR, option=2, price=10.0, single=0, best=0)
    assert many.describe().endswith("usd per 1,000; 400 held-out queries")
    nobody = replace(verdict, count=0, gain=float("nan"), low=float("-inf"))
    assert nobody.describe() == "no held-out query has what is compared"


def test_queries_of_the_calibration_split_count_where_no_quality_set_the_price() -> None:
    rng = np.random.default_rng(6)
    single_Q, usd_Q = rng.random((1, 800)), np.ones((1, 800))
    better_Q = single_Q + 0.02 + rng.normal(0, 0.3, (1, 800))
    first, second = (
        measure_pairs(better_Q[:, rows], usd_Q[:, rows] / 2, single_Q[:, rows], usd_Q[:, rows])
        for rows in (slice(0, 400), slice(400, 800))
    )
    guard = Guard(options=first, confidence=0.95)
    for goal in (Goal(), Goal(usd_per_1k=5000.0), Goal(usd_per_quality=1.0)):
        alone, joined = (
            guard.judge(goal, option=0, price=goal.fixed_price or 0.0, single=0, best=0, calibrated=part)
            for part in (None, second)
        )
        assert (alone.count, joined.count) == (400, 800)
    floor = guard.judge(FLOOR, option=0, price=0.0, single=0, best=0, calibrated=second)
    assert floor.count == 400
