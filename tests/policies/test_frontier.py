from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Goal, InputError
from turnout.policies import measure_frontier

PRICES = np.array([0.0, 1.0, 10.0, 100.0, np.inf])
TRUE_SHARE = np.array([1.05, 1.02, 0.99, 0.90, 0.60])


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw outcomes whose expected quality is `TRUE_SHARE` of the best single model's 0.8."""
    best_Q = (rng.random(count) < 0.8).astype(float)
    noise_PQ = rng.normal(0.0, 0.3, (PRICES.size, count))
    quality_PQ = TRUE_SHARE[:, None] * best_Q[None, :] + noise_PQ
    usd_PQ = rng.exponential(np.array([8.0, 6.0, 4.0, 2.0, 1.0])[:, None] / 1000.0, (PRICES.size, count))
    return quality_PQ, usd_PQ, best_Q


def test_the_quality_promise_is_broken_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    goal = Goal(quality_floor=0.97, confidence=0.9)
    broken, used = 0, []
    for _ in range(400):
        promise = measure_frontier(*draw(rng, 300), PRICES).promise(goal)
        index = int(np.searchsorted(PRICES, promise.price))
        used.append(index)
        broken += promise.is_kept and TRUE_SHARE[index] < 0.97
    assert broken / 400 <= 0.1 + 0.03
    assert np.mean(np.array(used) >= 1) > 0.5


def test_the_spend_promise_is_broken_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    goal = Goal(usd_per_1k=3.9, confidence=0.9)
    broken, used = 0, []
    for _ in range(400):
        promise = measure_frontier(*draw(rng, 300), PRICES).promise(goal)
        used.append(promise.price)
        broken += promise.is_kept and promise.price <= 10.0
    assert broken / 400 <= 0.1 + 0.03
    assert used.count(100.0) > 300


def test_a_goal_out_of_reach_is_not_promised_and_says_what_there_is() -> None:
    frontier = measure_frontier(*draw(np.random.default_rng(2), 500), PRICES)
    floor = frontier.promise(Goal(quality_floor=1.5))
    assert (floor.is_kept, floor.price) == (False, 0.0)
    assert "cannot be promised" in floor.text
    cap = frontier.promise(Goal(usd_per_1k=0.01))
    assert (cap.is_kept, cap.price) == (False, np.inf)
    assert "the cheapest way is used" in cap.text


def test_a_stated_price_is_taken_as_it_is() -> None:
    frontier = measure_frontier(*draw(np.random.default_rng(3), 500), PRICES)
    assert frontier.promise(Goal(usd_per_quality=0.2)).price == pytest.approx(5.0)
    assert frontier.promise(Goal()).price == 0.0


def test_unobserved_choices_are_left_out_price_by_price() -> None:
    rng = np.random.default_rng(4)
    quality_PQ, usd_PQ, best_Q = draw(rng, 400)
    full = measure_frontier(quality_PQ, usd_PQ, best_Q, PRICES)
    holes_PQ = np.where(rng.random(quality_PQ.shape) < 0.5, np.nan, quality_PQ)
    sparse = measure_frontier(holes_PQ, usd_PQ, best_Q, PRICES)
    assert (sparse.count_P < full.count_P).all()
    assert np.allclose(sparse.quality_P, full.quality_P, atol=0.1)


def test_covariance_and_variance_equal_numpy() -> None:
    quality_PQ, usd_PQ, best_Q = draw(np.random.default_rng(5), 50)
    frontier = measure_frontier(quality_PQ, usd_PQ, best_Q, PRICES)
    for index in range(PRICES.size):
        expected = np.cov(quality_PQ[index], best_Q)
        assert frontier.covariance_P[index] == pytest.approx(expected[0, 1])
        assert frontier.quality_var_P[index] == pytest.approx(expected[0, 0])
        assert frontier.usd_var_P[index] == pytest.approx(usd_PQ[index].var(ddof=1))


def test_a_cap_without_costs_and_a_calibration_of_one_are_refused() -> None:
    quality_PQ, usd_PQ, best_Q = draw(np.random.default_rng(6), 50)
    frontier = measure_frontier(quality_PQ, np.full_like(usd_PQ, np.nan), best_Q, PRICES)
    with pytest.raises(InputError, match="a spend cap needs costs"):
        frontier.promise(Goal(usd_per_1k=1.0))
    with pytest.raises(InputError, match="at least 2 at every price; got: 1"):
        measure_frontier(quality_PQ[:, :1], usd_PQ[:, :1], best_Q[:1], PRICES)
