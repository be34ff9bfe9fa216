from __future__ import annotations

import itertools

import numpy as np

from tests.policies.pools import make_pool, random_estimate
from turnout.core import make_estimate
from turnout.core.scoring import LEAST_PRICE
from turnout.policies import Best, price_grid, sweep
from turnout.policies.grid import _first, exchange_rates


def test_the_grid_runs_from_best_quality_to_cheapest_and_every_step_moves_choices() -> None:
    estimate = random_estimate(1, 500)
    prices = price_grid(estimate, num=20)
    assert prices[0] == 0.0
    assert np.isinf(prices[-1])
    assert (np.diff(prices) > 0).all()
    runs = sweep(Best(), estimate, prices, rng=np.random.default_rng(0))
    usd = [float(run.cost_usd_Q.mean()) for run in runs]
    assert all(earlier > later for earlier, later in itertools.pairwise(usd))


def test_the_exchange_rates_are_exactly_where_choices_change() -> None:
    estimate = random_estimate(3, 1, 6)
    rates = np.sort(exchange_rates(estimate))
    assert rates.size >= 1
    rng = np.random.default_rng(0)
    for rate in rates:
        below, above = sweep(Best(), estimate, [rate * (1 - 1e-9), rate * (1 + 1e-9)], rng=rng)
        assert below.names_Q != above.names_Q
    ends = np.concatenate([[0.0], rates, [2 * rates[-1] + 1]])
    middles = (ends[:-1] + ends[1:]) / 2
    assert len({run.names_Q for run in sweep(Best(), estimate, middles, rng=rng)}) == rates.size + 1


def test_scaling_all_costs_scales_the_grid_and_changes_no_choice() -> None:
    estimate = random_estimate(2)
    scaled = make_estimate(
        estimate.candidates, estimate.quality_QM, cost_usd_QM=estimate.cost_usd_QM * 1000.0
    )
    prices, small = price_grid(estimate), price_grid(scaled)
    assert np.allclose(prices[1:-1], small[1:-1] * 1000.0)
    rng = np.random.default_rng(0)
    for left, right in zip(
        sweep(Best(), estimate, prices, rng=rng), sweep(Best(), scaled, small, rng=rng), strict=True
    ):
        assert left.names_Q == right.names_Q


def test_without_costs_the_grid_is_the_price_zero() -> None:
    assert price_grid(make_estimate(make_pool(2), np.array([[0.1, 0.2]]))).tolist() == [0.0]


def test_the_least_price_puts_only_those_without_a_known_cost_last() -> None:
    cost_usd_QM = np.array([[0.001, np.nan, 0.002]])
    estimate = make_estimate(make_pool(3), np.array([[0.1, 0.9, 0.5]]), cost_usd_QM=cost_usd_QM)
    prices = price_grid(estimate, num=10)
    assert prices[:2].tolist() == [0.0, LEAST_PRICE]
    runs = sweep(Best(), estimate, prices, rng=np.random.default_rng(0))
    assert [run.names_Q[0] for run in runs[:2]] == ["m1", "m2"]
    assert runs[-1].names_Q == ("m0",)
    alone = make_estimate(make_pool(2), np.array([[0.1, 0.9]]), cost_usd_QM=cost_usd_QM[:, :2])
    assert price_grid(alone).tolist() == [0.0, LEAST_PRICE, np.inf]
    assert LEAST_PRICE not in price_grid(random_estimate(1, 50))


def test_the_least_of_each_row_is_what_a_sort_puts_first() -> None:
    rng = np.random.default_rng(0)
    key_QM, tie_QM = rng.integers(0, 4, (50, 9)) / 1.0, rng.integers(0, 3, (50, 9)) / 1.0
    key_QM[rng.random((50, 9)) < 0.3] = np.inf
    np.testing.assert_array_equal(_first(key_QM, tie_QM), np.lexsort((tie_QM, key_QM), axis=1)[:, 0])
