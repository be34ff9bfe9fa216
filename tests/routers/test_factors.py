"""Factors by descent: gradients, and directions whose scale means nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from turnout.routers.factors import Directions, outcome_loss, preference_loss

RNG = np.random.default_rng(0)
X_NF: Any = RNG.normal(size=(7, 4))
POINT = {"weight": RNG.normal(size=(4, 2)), "vector": RNG.normal(size=(3, 2)), "constant": RNG.normal(size=3)}


def assert_slope(loss: Callable[[dict[str, Any]], tuple[float, dict[str, Any]]]) -> None:
    _, gradient = loss(POINT)
    assert set(gradient) == set(POINT)
    for name, slope in gradient.items():
        step = RNG.normal(size=slope.shape)
        up, down = (loss({**POINT, name: POINT[name] + sign * 1e-5 * step})[0] for sign in (1, -1))
        np.testing.assert_allclose((up - down) / 2e-5, (slope * step).sum(), rtol=1e-5)


def test_the_gradient_of_outcomes_is_the_slope_of_the_loss() -> None:
    truth_NM: Any = RNG.random((7, 3))
    known_NM: Any = (RNG.random((7, 3)) < 0.7).astype(np.float64)
    assert_slope(lambda point: outcome_loss(point, X_NF, truth_NM, known_NM, 0.2))


def test_the_gradient_of_comparisons_is_the_slope_of_the_loss() -> None:
    won_NP: Any = RNG.random((7, 2))
    sign_PM: Any = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    assert_slope(lambda point: preference_loss(point, X_NF, won_NP, np.ones((7, 2)), sign_PM, 0.2))


def test_standard_directions_give_the_same_scores() -> None:
    x_NF, v_MD = X_NF.astype(np.float32), RNG.normal(size=(3, 3))
    plain = Directions(RNG.normal(size=(4, 2)).astype(np.float32))
    standard, moved_MD = plain.standard(x_NF, v_MD)
    np.testing.assert_allclose(
        standard.read(x_NF) @ moved_MD.T, plain.read(x_NF) @ v_MD.T, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(np.square(standard.read(x_NF)).mean(axis=0), 1.0, rtol=1e-4)
