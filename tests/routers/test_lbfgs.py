"""L-BFGS: the minimum of a quadratic, of a curved valley, and values that never rise."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.outcomes import Floats
from turnout.routers.lbfgs import minimise


def test_the_minimum_of_a_quadratic_is_the_solution_of_its_system() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, vector = root @ root.T + np.eye(6), rng.normal(size=6)

    def loss(at: Floats) -> tuple[float, Floats]:
        return float(0.5 * at @ matrix @ at - vector @ at), matrix @ at - vector

    found = minimise(loss, np.zeros(6), steps=200, tolerance=1e-10)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, vector), atol=1e-8)


def test_a_curved_valley_is_followed_to_its_end_and_no_step_rises() -> None:
    def loss(at: Floats) -> tuple[float, Floats]:
        x, y = at
        slope = np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
        return float(100 * (y - x * x) ** 2 + (1 - x) ** 2), slope

    start = np.array([-1.2, 1.0])
    accepted = [loss(minimise(loss, start, steps=steps))[0] for steps in range(0, 80, 4)]
    assert (np.diff(accepted) <= 1e-15).all()
    assert accepted[-1] == pytest.approx(0.0, abs=1e-10)


def test_a_flat_start_is_an_end() -> None:
    start = np.array([3.0, 4.0])
    np.testing.assert_array_equal(minimise(lambda at: (1.0, np.zeros(2)), start, steps=9), start)
