"""A goal is what a user asks for; a budget is what a policy obeys."""

from __future__ import annotations

import math
from typing import Any

import pytest

from turnout.core.budget import Budget, Goal
from turnout.core.errors import InputError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"price": -1.0}, r"Budget.price; allowed: a number in \[0, inf\]; got: -1.0"),
        ({"price": math.nan}, "Budget.price; .*; got: nan"),
        ({"usd_per_query": -0.1}, "Budget.usd_per_query; .*; got: -0.1"),
        ({"usd_per_1k": "5"}, "Budget.usd_per_1k; .*; got: '5'"),
        ({"max_latency_s": -1}, "Budget.max_latency_s; .*; got: -1"),
        ({"min_quality": 1.5}, r"Budget.min_quality; allowed: a number in \[0, 1\]; got: 1.5"),
    ],
)
def test_a_wrong_budget_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**settings)


def test_another_price_keeps_the_caps() -> None:
    budget = Budget(usd_per_query=0.1, min_quality=0.5, max_latency_s=2.0, usd_per_1k=3.0)
    assert budget.at_price(math.inf) == Budget(
        price=math.inf, usd_per_query=0.1, min_quality=0.5, max_latency_s=2.0, usd_per_1k=3.0
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality_floor": 0.0}, r"Goal.quality_floor; allowed: a number in \(0, 2\]; got: 0.0"),
        ({"quality_floor": 2.5}, "Goal.quality_floor; .*; got: 2.5"),
        ({"usd_per_1k": 0.0}, "Goal.usd_per_1k; .*; got: 0.0"),
        ({"usd_per_quality": -1}, "Goal.usd_per_quality; .*; got: -1"),
        ({"risk": 1.0}, r"Goal.risk; allowed: a number in \[0, 1\); got: 1.0"),
        ({"confidence": 0.5}, r"Goal.confidence; allowed: a number in \(0.5, 1\); got: 0.5"),
        ({"confidence": 1.0}, "Goal.confidence; .*; got: 1.0"),
        (
            {"quality_floor": 1.0, "usd_per_1k": 1.0},
            r"Goal; allowed: at most one of quality_floor, .*; got: \['quality_floor', 'usd_per_1k'\]",
        ),
    ],
)
def test_a_wrong_goal_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Goal(**settings)


@pytest.mark.parametrize(
    ("goal", "dial", "price", "phrase"),
    [
        (Goal(), None, 0.0, "the best quality"),
        (
            Goal(quality_floor=0.95),
            "quality_floor",
            None,
            "at least 95.0% of the best single model's quality",
        ),
        (Goal(usd_per_1k=2.5), "usd_per_1k", None, "at most 2.5 usd per 1,000 requests"),
        (Goal(usd_per_quality=0.02), "usd_per_quality", 50.0, "0.02 usd for one more right answer"),
        (Goal(usd_per_quality=math.inf), "usd_per_quality", 0.0, "inf usd for one more right answer"),
    ],
)
def test_a_goal_knows_its_dial_and_the_price_where_it_states_one(
    goal: Goal, dial: str | None, price: float | None, phrase: str
) -> None:
    assert (goal.dial, goal.fixed_price, goal.describe()) == (dial, price, phrase)
