from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.policies.outcomes import PRICES, SHARES, draw, make_frontier
from turnout.core import Goal, InputError
from turnout.policies import measure_pairs


def test_the_quality_promise_is_broken_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    goal = Goal(quality_floor=0.97, confidence=0.9)
    broken, used = 0, []
    for _ in range(400):
        found = make_frontier(rng, 300).find_price(goal)
        used.append(found.index)
        broken += found.is_kept and SHARES[found.index] < 0.97
    assert broken / 400 <= 0.1 + 0.03
    assert np.mean(np.array(used) >= 1) > 0.5


def test_the_spend_promise_is_broken_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    goal = Goal(usd_per_1k=3.9, confidence=0.9)
    broken, used = 0, []
    for _ in range(400):
        found = make_frontier(rng, 300).find_price(goal)
        used.append(found.index)
        broken += found.is_kept and found.index <= 2
    assert broken / 400 <= 0.1 + 0.03
    assert used.count(3) > 300


def test_a_single_model_that_breaks_a_floor_is_rarely_taken_for_one_that_keeps_it() -> None:
    rng = np.random.default_rng(2)
    goal = Goal(quality_floor=0.98, confidence=0.9)
    wrong = sum(make_frontier(rng, 300).find_single(goal).index != 0 for _ in range(300))
    assert wrong / 300 <= 0.1 + 0.03


def test_the_cheapest_single_that_keeps_the_floor_is_found() -> None:
    frontier = make_frontier(np.random.default_rng(3), 2000)
    assert frontier.find_single(Goal(quality_floor=0.9)).index == 1
    assert frontier.find_single(Goal(quality_floor=1.0)).index == 0
    assert frontier.find_single(Goal(usd_per_1k=6.0)).index == 1
    assert frontier.find_single(Goal()).index == 0
    assert frontier.find_single(Goal(usd_per_quality=1e-9)).index == 2


def test_a_goal_out_of_reach_is_not_kept_and_the_strictest_is_used() -> None:
    frontier = make_frontier(np.random.default_rng(4), 500)
    floor, cap = frontier.find_price(Goal(quality_floor=1.5)), frontier.find_price(Goal(usd_per_1k=0.01))
    assert (floor.is_kept, floor.index) == (False, 0)
    assert (cap.is_kept, cap.index) == (False, PRICES.size - 1)
    assert not frontier.find_single(Goal(quality_floor=1.5)).is_kept
    assert not frontier.find_single(Goal(usd_per_1k=0.01)).is_kept


def test_slack_allows_more_and_confidence_allows_less() -> None:
    frontier = make_frontier(np.random.default_rng(5), 500)
    strict = frontier.find_price(Goal(quality_floor=1.0, confidence=0.999)).index
    plain = frontier.find_price(Goal(quality_floor=1.0)).index
    slack = frontier.find_price(Goal(quality_floor=1.0, risk=0.1)).index
    assert strict <= plain <= slack
    assert strict < slack


def test_a_stated_price_is_the_nearest_lower_one() -> None:
    frontier = make_frontier(np.random.default_rng(6), 100)
    assert frontier.find_price(Goal(usd_per_quality=0.2)).index == 1
    assert frontier.find_price(Goal()).index == 0


def test_money_without_costs_is_refused() -> None:
    quality_PQ, usd_PQ, quality_MQ, usd_MQ = draw(np.random.default_rng(7), 50)
    frontier = replace(
        make_frontier(np.random.default_rng(7), 50),
        options=measure_pairs(quality_PQ, usd_PQ * np.nan, quality_MQ, usd_MQ * np.nan),
        usd_M=np.full(3, np.nan),
    )
    with pytest.raises(InputError, match="needs costs, and the table that was calibrated on records none"):
        frontier.find_price(Goal(usd_per_1k=1.0))
    assert frontier.find_single(Goal(quality_floor=1.0)).index == 0
