"""Routing vectors: a minimum, the rule of PHATGOOSE against loops, and blank texts."""

from __future__ import annotations

import numpy as np

from turnout.routers.routing_vectors import learn_vector, shares_of, standard_rows


def loss(u_NF: np.ndarray, v_F: np.ndarray) -> float:
    return float(np.log1p(np.exp(-(u_NF @ v_F))).mean() + 0.005 * v_F @ v_F)


def test_the_vector_is_where_the_loss_is_least() -> None:
    rng = np.random.default_rng(0)
    u_NF = rng.normal(size=(30, 6)) + np.array([1.0, 0.5, 0.0, 0.0, -0.5, 0.0])
    v_F = learn_vector(u_NF)
    least = loss(u_NF, v_F)
    for _ in range(200):
        assert loss(u_NF, v_F + 0.05 * rng.normal(size=6)) > least
    np.testing.assert_array_equal(learn_vector(np.zeros((3, 4))), 0.0)


def test_shares_are_a_softmax_of_the_best_standardised_products() -> None:
    rng = np.random.default_rng(0)
    u_QF, v_DF = rng.normal(size=(5, 8)), rng.normal(size=(4, 8))
    found_QD = shares_of(u_QF, v_DF, 2)
    for q in range(5):
        scores = []
        for d in range(4):
            u, v = ((x - x.mean()) / x.std() for x in (u_QF[q], v_DF[d]))
            scores.append(u @ v / np.sqrt(8.0))
        best = sorted(range(4), key=lambda d: -scores[d])[:2]
        total = sum(np.exp(scores[d]) for d in best)
        want = [np.exp(scores[d]) / total if d in best else 0.0 for d in range(4)]
        np.testing.assert_allclose(found_QD[q], want, rtol=1e-9)


def test_a_blank_text_is_shared_by_all_and_a_constant_row_is_zero() -> None:
    np.testing.assert_allclose(shares_of(np.zeros((1, 3)), np.eye(3), 1), 1.0 / 3.0)
    np.testing.assert_allclose(standard_rows(np.full((1, 3), 0.1)), 0.0, atol=1e-12)
