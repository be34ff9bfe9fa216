"""Softmax regression: its slope by differences, its optimum, and the two limits of its two terms."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.outcomes import Floats
from turnout.routers.softmax_regression import fit_softmax, log_softmax, softmax_from

RNG = np.random.default_rng(0)
X_NF = RNG.normal(size=(60, 3))
TARGET_NK = RNG.dirichlet(np.ones(4), size=60)
COST_NK = RNG.random((60, 4))
PENALTY = 0.3


def objective(theta_GK: Floats, cost_NK: Floats | None) -> float:
    log_NK = log_softmax(X_NF @ theta_GK[:-1] + theta_GK[-1])
    value = float((TARGET_NK * (np.log(TARGET_NK) - log_NK)).sum())
    value += 0.5 * PENALTY * float((theta_GK[:-1] ** 2).sum())
    return value if cost_NK is None else value + float((np.exp(log_NK) * cost_NK).sum())


@pytest.mark.parametrize("cost_NK", [None, COST_NK])
def test_no_small_move_lowers_the_published_loss(cost_NK: Floats | None) -> None:
    found = fit_softmax(X_NF, TARGET_NK, penalty=PENALTY, cost_NK=cost_NK, steps=500)
    theta_GK = np.vstack([found.weight_FK, found.intercept_K])
    least = objective(theta_GK, cost_NK)
    for place in np.ndindex(theta_GK.shape):
        for step in (1e-2, -1e-2):
            moved_GK = theta_GK.copy()
            moved_GK[place] += step
            assert objective(moved_GK, cost_NK) > least - 1e-9


def test_an_infinite_penalty_gives_the_mean_target() -> None:
    found = fit_softmax(X_NF, TARGET_NK, penalty=1e5, steps=500)
    np.testing.assert_allclose(found.shares(X_NF[:1])[0], TARGET_NK.mean(axis=0), atol=1e-3)


def test_heavy_costs_leave_the_cheapest_choice() -> None:
    cost_NK = np.tile([3.0, 1.0, 2.0, 4.0], (60, 1)) * 1e3
    found = fit_softmax(X_NF, TARGET_NK, penalty=PENALTY, cost_NK=cost_NK)
    assert (found.shares(X_NF).argmax(axis=1) == 1).all()


def test_a_choice_that_takes_no_part_changes_nothing_for_its_row() -> None:
    known_NK = np.ones((60, 4), np.bool_)
    known_NK[:30, 3] = False
    target_NK = np.where(known_NK, TARGET_NK, 0.0)
    target_NK /= target_NK.sum(axis=1, keepdims=True)
    found = fit_softmax(X_NF[:30], target_NK[:30], penalty=PENALTY, known_NK=known_NK[:30])
    three = fit_softmax(X_NF[:30], target_NK[:30, :3], penalty=PENALTY)
    shares_NK = found.shares(X_NF)[:, :3]
    np.testing.assert_allclose(
        shares_NK / shares_NK.sum(axis=1, keepdims=True), three.shares(X_NF), atol=1e-4
    )
    same = softmax_from(found.arrays())
    np.testing.assert_array_equal(same.shares(X_NF), found.shares(X_NF))
