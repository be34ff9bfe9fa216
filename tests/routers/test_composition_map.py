"""The map of a composition: it equals exhaustive search, and never exceeds its budget."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.core.outcomes import Floats
from turnout.routers.composition_map import map_within_size, map_within_usd


def best_by_hand(value_DM: Floats, cost_of: object, budget: float) -> float:
    assert callable(cost_of)
    rows = np.arange(len(value_DM))
    scores = [
        value_DM[rows, list(one)].sum()
        for one in product(range(value_DM.shape[1]), repeat=len(rows))
        if cost_of(list(one)) <= budget + 1e-12 and np.isfinite(value_DM[rows, list(one)]).all()
    ]
    return float(max(scores, default=-np.inf))


@pytest.mark.parametrize("seed", range(25))
def test_a_money_budget_is_spent_as_exhaustive_search_spends_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value_DM, usd_DM = rng.random((4, 5)), rng.random((4, 5)) * rng.choice([0.01, 1.0], 5)
    if seed % 3 == 0:
        # Ties in value and in cost, free experts, and one that nobody knows.
        value_DM, usd_DM = value_DM.round(1), usd_DM.round(1)
        value_DM[:, 4] = np.nan
    rows = np.arange(4)
    low, high = usd_DM[:, :4].min(axis=1).sum(), usd_DM[:, :4].max(axis=1).sum()
    for budget in np.linspace(low, high, 9):
        map_D = map_within_usd(value_DM, usd_DM, float(budget))
        assert usd_DM[rows, map_D].sum() <= budget * (1 + 1e-8) + 1e-12
        truth = best_by_hand(value_DM, lambda one: usd_DM[rows, one].sum(), float(budget) * (1 + 1e-9))
        assert value_DM[rows, map_D].sum() == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_a_parameter_budget_buys_what_exhaustive_search_buys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value_DM, size_M = rng.random((4, 5)), rng.choice([0.0, 1.0, 2.0, 7.0, 8.0, 70.0], 5)
    if seed % 3 == 0:
        value_DM = value_DM.round(1)
    rows = np.arange(4)
    for budget in np.unique([size_M.min(), 3.0, 9.0, 16.0, size_M.sum()]):
        if budget < size_M.min():
            continue
        map_D = map_within_size(value_DM, size_M, float(budget))
        assert size_M[np.unique(map_D)].sum() <= budget + 1e-9
        truth = best_by_hand(value_DM, lambda one: size_M[np.unique(one)].sum(), float(budget))
        assert value_DM[rows, map_D].sum() == pytest.approx(truth, abs=1e-9)


def test_a_large_map_is_found_at_once_and_a_looser_budget_is_never_worse() -> None:
    rng = np.random.default_rng(0)
    value_DM, usd_DM = rng.random((60, 40)), rng.random((60, 40))
    rows, scores = np.arange(60), []
    for budget in (2.0, 4.0, 8.0, 16.0, 60.0):
        map_D = map_within_usd(value_DM, usd_DM, budget)
        assert usd_DM[rows, map_D].sum() <= budget
        scores.append(value_DM[rows, map_D].sum())
    assert (np.diff(scores) >= -1e-12).all()
    assert scores[-1] == pytest.approx(value_DM.max(axis=1).sum())


def test_a_budget_that_nobody_fits_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 0\.3 usd"):
        map_within_usd(np.ones((3, 2)), np.full((3, 2), 0.1), 0.2)
    with pytest.raises(InputError, match="at least 7 billion"):
        map_within_size(np.ones((3, 2)), np.array([7.0, 8.0]), 6.0)
    with pytest.raises(InputError, match="costs are unknown"):
        map_within_usd(np.ones((3, 2)), np.full((3, 2), np.nan), 0.2)
