from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.policies.outcomes import PRICES, SHARES, draw, make_frontier
from turnout.core import Goal, InputError
from turnout.policies import Pairs, measure_pairs, measure_singles
from turnout.policies.pairs import singles_of


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


def test_a_cap_is_tested_though_the_best_single_model_has_no_price() -> None:
    quality_PQ, usd_PQ, quality_MQ, usd_MQ = draw(np.random.default_rng(8), 500)
    usd_MQ[0] = np.nan
    frontier = replace(
        make_frontier(np.random.default_rng(8), 500),
        options=measure_pairs(quality_PQ, usd_PQ, quality_MQ, usd_MQ),
        singles=measure_singles(quality_MQ, usd_MQ, 0),
        usd_M=np.array([np.nan, 0.005, 0.0009]),
    )
    found = frontier.find_price(Goal(usd_per_1k=7.0))
    assert found.is_kept
    assert found.index >= 1  # at price 0 the one without a price may be chosen
    assert frontier.find_single(Goal(usd_per_1k=7.0)).index == 1
    assert np.isfinite(frontier.outcome(option=found.index)).all()
    assert frontier.least_price > 0.0
    assert make_frontier(np.random.default_rng(8), 500).least_price == 0.0


def test_of_equally_cheap_single_models_the_better_is_taken() -> None:
    free = replace(make_frontier(np.random.default_rng(9), 10), usd_M=np.zeros(3))
    free = replace(free, quality_M=np.array([0.1, 0.3, 0.2]))
    for goal in (Goal(usd_per_1k=0.01), Goal(usd_per_quality=1e-300)):
        assert free.find_single(goal).index == 1
    assert free.find_single(Goal(usd_per_1k=0.01)).is_kept
    assert free.find_price(Goal(usd_per_1k=0.01)).is_kept
    priced = replace(free, usd_M=np.array([0.1, 0.1, 0.2]))
    found = priced.find_single(Goal(usd_per_1k=0.01))
    assert (found.index, found.is_kept) == (1, False)


def test_under_a_floor_the_best_single_model_goes_before_equally_cheap_ones() -> None:
    frontier = make_frontier(np.random.default_rng(11), 2000)
    goal = Goal(quality_floor=0.9)
    # The second looks better where it was fitted, by luck; both keep the floor.
    lucky = np.array([0.80, 0.81, 0.4])
    for usd_M in (np.zeros(3), np.array([0.001, 0.001 * (1 - 1e-13), 0.002])):
        found = replace(frontier, quality_M=lucky, usd_M=usd_M).find_single(goal)
        assert (found.index, found.is_kept, found.by_definition) == (0, True, "best")
    cheaper = replace(frontier, quality_M=lucky, usd_M=np.array([0.001, 0.0009, 0.002])).find_single(goal)
    assert (cheaper.index, cheaper.by_definition) == (1, None)


def test_a_quality_that_is_said_lies_on_the_scale() -> None:
    frontier = make_frontier(np.random.default_rng(12), 50)
    quality = frontier.options.moments_SKM.copy()
    quality[1] += 1.0
    high = replace(frontier, options=Pairs(moments_SKM=quality))
    assert high.outcome(option=0)[0] == 1.0


def test_older_pairs_of_every_single_model_are_read_as_the_newer_ones() -> None:
    _, _, quality_MQ, usd_MQ = draw(np.random.default_rng(13), 40)
    quality_MQ[1, :5], usd_MQ[2, 7:9] = np.nan, np.nan
    every = measure_pairs(quality_MQ, usd_MQ, quality_MQ, usd_MQ)
    for best in range(3):
        read = singles_of(every, best).moments_SKM[:-1]
        np.testing.assert_allclose(
            read, measure_singles(quality_MQ, usd_MQ, best).moments_SKM[:-1], rtol=1e-9
        )


def test_a_floor_that_nobody_of_known_cost_keeps_goes_to_the_best() -> None:
    frontier = replace(make_frontier(np.random.default_rng(10), 500), usd_M=np.array([np.nan, 0.005, 0.001]))
    found = frontier.find_single(Goal(quality_floor=1.0))
    assert (found.index, found.is_kept) == (0, True)
