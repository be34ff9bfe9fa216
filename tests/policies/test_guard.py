from __future__ import annotations

import numpy as np

from turnout.policies import measure_guard

PRICES = np.array([0.0, 10.0, np.inf])


def test_it_opens_only_where_the_lower_bound_of_the_gain_is_above_zero() -> None:
    rng = np.random.default_rng(0)
    better_PQ = rng.normal(0.05, 0.2, (3, 500))
    guard = measure_guard(better_PQ, np.zeros((3, 500)), PRICES, confidence=0.95)
    assert guard.is_open_P.tolist() == [True, True, False]
    assert guard.is_open(5.0)
    assert not guard.is_open(np.inf)


def test_a_router_equal_to_the_best_single_is_let_through_at_most_at_the_stated_rate() -> None:
    rng = np.random.default_rng(1)
    opened = [
        measure_guard(rng.normal(0, 0.3, (1, 200)), np.zeros((1, 200)), PRICES[:1], confidence=0.95)
        .is_open_P.item()
        for _ in range(1000)
    ]  # fmt: skip
    assert np.mean(opened) <= 0.05 + 0.02


def test_money_saved_counts_at_the_price() -> None:
    quality_PQ = np.full((3, 100), -0.01) + np.random.default_rng(2).normal(0, 1e-4, (3, 100))
    usd_PQ = np.full((3, 100), -0.002)
    guard = measure_guard(quality_PQ, usd_PQ, PRICES, confidence=0.95)
    assert guard.is_open_P.tolist() == [False, True, True]
    assert guard.gain_P[1] == np.float64(quality_PQ[1].mean() + 0.02)


def test_nothing_observed_shuts_it() -> None:
    guard = measure_guard(np.full((3, 5), np.nan), np.full((3, 5), np.nan), PRICES, confidence=0.9)
    assert not guard.is_open_P.any()
    assert guard.count == 0
