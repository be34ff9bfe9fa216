"""Gradients are exact: they agree with finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnout.core.outcomes import Floats
from turnout.sequential.softmax import Adam, Situation, Weights, log_probabilities, sum_gradient

A, D, K = 4, 3, 2


def situations(num: int, *, seed: int) -> list[Situation]:
    """Return random situations in which not every action is allowed."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        allowed_A = rng.random(A) < 0.7
        allowed_A[rng.integers(A)] = True
        found.append(Situation(rng.normal(size=D), rng.normal(size=(A, K)), allowed_A))
    return found


def weights(seed: int) -> Weights:
    """Return random weights."""
    rng = np.random.default_rng(seed)
    return Weights(rng.normal(size=(A, D)), rng.normal(size=K))


def objective(
    parameters: Weights, cases: list[Situation], actions: list[int], scales: list[float], entropy: float
) -> float:
    """Return what the gradient is the gradient of."""
    total = 0.0
    for case, action, scale in zip(cases, actions, scales, strict=True):
        log_A = log_probabilities(parameters, case)
        allowed = case.allowed_A
        total += scale * float(log_A[action])
        total += entropy * -float((np.exp(log_A[allowed]) * log_A[allowed]).sum())
    return total


@pytest.mark.parametrize("entropy", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_gradients_agree_with_finite_differences(seed: int, entropy: float) -> None:
    cases, parameters = situations(6, seed=seed), weights(seed)
    rng = np.random.default_rng(seed)
    actions = [int(rng.choice(np.flatnonzero(case.allowed_A))) for case in cases]
    scales = rng.normal(size=6).tolist()
    found = sum_gradient(parameters, cases, actions, scales, entropy=entropy)
    step = 1e-6
    pairs: list[tuple[Floats, Floats]] = [
        (parameters.weights_AD, found.weights_AD), (parameters.shared_K, found.shared_K)
    ]  # fmt: skip
    for values, slopes in pairs:
        for index in np.ndindex(values.shape):
            was = values[index]
            ends = []
            for moved in (was + step, was - step):
                values[index] = moved
                ends.append(objective(parameters, cases, actions, scales, entropy))
            values[index] = was
            assert slopes[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7, rel=1e-6)


def test_probabilities_are_those_of_the_allowed() -> None:
    for case in situations(20, seed=9):
        chance_A = np.exp(log_probabilities(weights(1), case))
        assert chance_A.sum() == pytest.approx(1.0)
        assert (chance_A[~case.allowed_A] == 0).all()
    even = np.exp(log_probabilities(Weights.zeros(A, D, K), case))
    assert even[case.allowed_A] == pytest.approx(1 / case.allowed_A.sum())


def test_large_logits_do_not_overflow() -> None:
    case = Situation(np.array([1e4, 0.0, 0.0]), np.zeros((A, K)), np.ones(A, np.bool_))
    parameters = Weights.zeros(A, D, K)
    parameters.weights_AD[2, 0] = 1.0
    assert math.exp(log_probabilities(parameters, case)[2]) == 1.0


def test_adam_climbs_to_the_top() -> None:
    parameters, adam = Weights.zeros(1, 1, 1), Adam(0.1)
    for _ in range(300):
        slope = Weights(2 * (3.0 - parameters.weights_AD), 2 * (-1.0 - parameters.shared_K))
        adam.ascend(parameters, slope)
    assert parameters.weights_AD[0, 0] == pytest.approx(3.0, abs=0.01)
    assert parameters.shared_K[0] == pytest.approx(-1.0, abs=0.01)
