from __future__ import annotations

import numpy as np
import pytest

from tests.policies.outcomes import make_frontier, make_guard
from turnout.core import Goal
from turnout.policies.plan import make_plan

NAMES = ("dear", "middle", "cheap")
FRONTIER = make_frontier(np.random.default_rng(0), 800)
GUARD = make_guard(np.random.default_rng(1), 800)


def test_the_router_serves_a_floor_that_it_keeps_for_less() -> None:
    plan = make_plan(Goal(quality_floor=0.95), FRONTIER, GUARD, NAMES)
    assert plan.is_open
    assert plan.is_kept
    assert plan.price == 10.0
    assert plan.single == 1
    assert plan.usd_per_1k == pytest.approx(4.0, rel=0.2)
    assert plan.text.startswith("the router keeps at least 95.0% of the best single model's quality")


def test_a_single_model_that_keeps_the_goal_replaces_a_router_that_does_not() -> None:
    worse = make_frontier(np.random.default_rng(2), 800)
    goal = Goal(quality_floor=1.0, confidence=0.9999999)
    plan = make_plan(goal, worse, GUARD, NAMES)
    if not worse.find_price(goal).is_kept:
        assert not plan.is_open
    assert plan.is_kept
    assert NAMES[plan.single or 0] in plan.text or plan.is_open


def test_what_cannot_be_promised_says_so_and_names_who_comes_nearest() -> None:
    plan = make_plan(Goal(usd_per_1k=0.01), FRONTIER, GUARD, NAMES)
    assert not plan.is_kept
    assert "cannot be promised" in plan.text
    assert "cheap" in plan.text or "the router" in plan.text


def test_a_price_is_served_and_nothing_is_promised() -> None:
    plan = make_plan(Goal(usd_per_quality=0.05), FRONTIER, GUARD, NAMES)
    assert plan.price == pytest.approx(20.0)
    assert "nothing is promised" in plan.text


def test_without_a_guard_the_router_decides() -> None:
    assert make_plan(Goal(), FRONTIER, None, NAMES).is_open
