"""Adam: a known optimum, a start that is kept where nothing is better, slopes by finite differences."""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Ints
from turnout.core.rng import make_rng
from turnout.routers.adam import Adam, Loss, Parameters, Real, log_loss, sigmoid, softmax


def squares(x_NF: np.ndarray, y_N: np.ndarray) -> Loss:
    """Return the loss of least squares."""

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        off_N = x_NF[rows] @ point["weight"] - y_N[rows]
        return float(np.square(off_N).mean()), {"weight": 2.0 * x_NF[rows].T @ off_N / rows.size}

    return loss


def test_the_optimum_of_least_squares_is_found() -> None:
    rng = np.random.default_rng(0)
    x_NF, weight_F = rng.normal(size=(600, 4)).astype(np.float32), np.array([1.0, -2.0, 0.5, 0.0])
    start = {"weight": np.zeros(4, np.float32)}
    loss = squares(x_NF, x_NF @ weight_F)
    found = Adam(num_steps=800, rate=0.05).run(start, loss, 600, make_rng(0, "a"))
    np.testing.assert_allclose(found["weight"], weight_F, atol=1e-2)
    np.testing.assert_array_equal(start["weight"], 0.0)


def test_what_only_fits_noise_is_not_kept() -> None:
    rng = np.random.default_rng(0)
    x_NF, y_N = rng.normal(size=(60, 50)).astype(np.float32), rng.normal(size=60)
    start = {"weight": np.zeros(50, np.float32)}
    found = Adam(num_steps=400, rate=0.3).run(start, squares(x_NF, y_N), 60, make_rng(0, "a"))
    held_out = np.sort(make_rng(0, "a").permutation(60)[:6])
    loss = squares(x_NF, y_N)
    assert loss(found, held_out)[0] <= loss(start, held_out)[0]


def test_decay_draws_to_zero() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(20, 3)).astype(np.float32)
    start = {"weight": np.ones(3, np.float32)}
    zero = squares(0.0 * x_NF, np.zeros(20))
    plain = Adam(num_steps=100, rate=0.05).run(start, zero, 20, make_rng(0, "a"))
    drawn = Adam(num_steps=100, rate=0.05, decay=0.5).run(start, zero, 20, make_rng(0, "a"))
    np.testing.assert_array_equal(plain["weight"], 1.0)
    assert (np.abs(drawn["weight"]) < 0.4).all()


def test_log_loss_is_the_formula_and_its_slope_the_finite_difference() -> None:
    rng = np.random.default_rng(1)
    p_NM, truth_NM = rng.uniform(0.1, 0.9, (5, 3)), rng.random((5, 3))
    known_NM = (rng.random((5, 3)) < 0.7).astype(np.float64)
    loss, slope_NM = log_loss(p_NM, truth_NM, known_NM)
    each_NM = -(truth_NM * np.log(p_NM) + (1 - truth_NM) * np.log(1 - p_NM))
    np.testing.assert_allclose(loss, each_NM[known_NM > 0].mean(), rtol=1e-12)
    for cell in np.ndindex(5, 3):
        step_NM = np.zeros((5, 3))
        step_NM[cell] = 1e-6
        sides = [log_loss(p_NM + sign * step_NM, truth_NM, known_NM)[0] for sign in (1.0, -1.0)]
        np.testing.assert_allclose(slope_NM[cell], (sides[0] - sides[1]) / 2e-6, rtol=1e-4, atol=1e-7)
    assert np.isfinite(log_loss(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.ones((1, 2)))[0])
    assert log_loss(p_NM, truth_NM, 0.0 * known_NM)[0] == 0.0


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(
            sigmoid(np.array([-1e4, 0.0, 2.0, 1e4])), [0.0, 0.5, 1 / (1 + np.exp(-2)), 1.0]
        )
        np.testing.assert_allclose(softmax(np.array([[1e4, 0.0], [0.0, 0.0]])), [[1.0, 0.0], [0.5, 0.5]])
