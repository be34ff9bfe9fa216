"""Stacking: weights by brute force, the split of a prediction, and the spread of a mixture."""

from __future__ import annotations

import itertools

import numpy as np

from turnout.routers.stacking import Held, Weights, learn_weights, nonnegative, parts

NAN = np.nan


def best_of_supports(gram_CC: np.ndarray, moment_C: np.ndarray) -> np.ndarray:
    """Return the least squares of every subset of columns, the feasible one of least loss: the slow twin."""
    num, best, least = moment_C.size, np.zeros(moment_C.size), 0.0
    for size in range(1, num + 1):
        for support in map(list, itertools.combinations(range(num), size)):
            weight_C = np.zeros(num)
            weight_C[support] = np.linalg.solve(gram_CC[np.ix_(support, support)], moment_C[support])
            loss = float(weight_C @ gram_CC @ weight_C - 2.0 * weight_C @ moment_C)
            if (weight_C >= 0.0).all() and loss < least:
                best, least = weight_C, loss
    return best


def test_descent_finds_the_best_weights_that_are_not_negative() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x_NC = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5))
        gram_CC, moment_C = x_NC.T @ x_NC, x_NC.T @ rng.standard_normal(60)
        solid_CC = gram_CC + 1e-3 * np.diag(np.diag(gram_CC))
        np.testing.assert_allclose(
            nonnegative(gram_CC, moment_C), best_of_supports(solid_CC, moment_C), atol=1e-6
        )
    assert nonnegative(np.zeros((2, 2)), np.zeros(2)).tolist() == [0.0, 0.0]


def test_a_prediction_is_its_base_its_common_part_and_its_own_part() -> None:
    rng = np.random.default_rng(1)
    quality_KQM, base_QM = rng.random((3, 7, 4)), rng.random((1, 4)).repeat(7, axis=0)
    pool_M = np.array([True, True, True, False])
    common_KQ1, own_KQM = parts(quality_KQM, base_QM, pool_M)
    np.testing.assert_allclose(base_QM + common_KQ1 + own_KQM, quality_KQM)
    np.testing.assert_allclose(own_KQM[:, :, :3].mean(axis=2), 0.0, atol=1e-15)
    one = Weights(np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.ones(3) / 3)
    np.testing.assert_allclose(one.mix(quality_KQM, base_QM, pool_M), quality_KQM[1])


def held(seed: int, num: int = 400) -> Held:
    """Return members that know the own part, the common part and nothing."""
    rng = np.random.default_rng(seed)
    base_QM = np.broadcast_to([0.6, 0.5, 0.4], (num, 3)).copy()
    common_Q1, own_QM = 0.2 * rng.standard_normal((num, 1)), 0.1 * rng.standard_normal((num, 3))
    own_QM -= own_QM.mean(axis=1, keepdims=True)
    noise_QM = 0.1 * rng.standard_normal((num, 3))
    truth_QM = base_QM + common_Q1 + own_QM + 0.1 * rng.standard_normal((num, 3))
    truth_QM[rng.random((num, 3)) < 0.5] = NAN
    cost_QM = rng.uniform(1, 2, (num, 3))
    return Held(
        np.stack([base_QM + own_QM, base_QM + common_Q1, base_QM + noise_QM]),
        np.stack([cost_QM + 1.0, cost_QM, cost_QM - 0.5]),
        base_QM,
        truth_QM,
        cost_QM,
    )


def test_each_part_of_each_member_is_weighed_by_what_it_knows() -> None:
    folds = [held(0).evidence(), held(1).evidence()]
    weights = learn_weights(folds)
    np.testing.assert_allclose(weights.own_K[0], 1.0, atol=0.1)
    np.testing.assert_allclose(weights.common_K[1], 1.0, atol=0.1)
    assert weights.own_K[2] + weights.common_K[2] < 0.1
    assert weights.cost_K.tolist() == [0.0, 1.0, 0.0]
    some = learn_weights([fold.take([1, 2]) for fold in folds])
    assert some.common_K[0] > 0.9
    assert some.own_K[0] < 0.1
    assert some.cost_K.tolist() == [1.0, 0.0]


def test_disagreement_widens_the_spread_by_the_variance_of_the_mixture() -> None:
    weights = Weights(np.array([0.3, 0.5]), np.zeros(2), np.array([1.0, 0.0]))
    mean, (left, right), base = np.array([[0.5]]), (np.array([[0.2]]), np.array([[0.8]])), np.array([[0.4]])
    spread_KQM = np.array([[[0.1]], [[0.2]]])
    wide = weights.spread(mean, np.stack([left, right]), spread_KQM, base, np.array([[0.05]]))
    expected = 0.2 * (0.05**2 + 0.1**2) + 0.3 * (0.1**2 + 0.3**2) + 0.5 * (0.2**2 + 0.3**2)
    np.testing.assert_allclose(wide, expected**0.5)
    alike = weights.spread(mean, np.stack([mean, mean]), spread_KQM, mean, np.array([[0.05]]))
    assert (alike < wide).all()
