"""Bradley-Terry: the maximum of the likelihood by another algorithm, and a newcomer's place."""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.bradley_terry import all_pairs, outcome_of, rating_against, ratings, win_probability


def by_rounds(num_P: Floats, won_P: Floats, num_things: int) -> Floats:
    """Return the ratings of one query by Hunter's minorise-maximise rounds, slow and sure."""
    first, second = all_pairs(num_things)
    gamma_T = np.ones(num_things)
    for _ in range(5_000):
        wins_T, load_T = np.zeros(num_things), np.zeros(num_things)
        np.add.at(wins_T, first, won_P)
        np.add.at(wins_T, second, num_P - won_P)
        for thing, other in ((first, second), (second, first)):
            np.add.at(load_T, thing, num_P / (gamma_T[thing] + gamma_T[other]))
        gamma_T = wins_T / load_T
        gamma_T /= np.exp(np.log(gamma_T).mean())
    return np.log(gamma_T)


def test_newtons_ratings_are_those_of_minorise_maximise() -> None:
    rng = np.random.default_rng(0)
    num_QP = rng.uniform(0.5, 9.0, (6, 10))
    won_QP = num_QP * rng.uniform(0.02, 0.98, (6, 10))
    xi_QT = ratings(num_QP, won_QP, 5)
    np.testing.assert_allclose(xi_QT.sum(axis=1), 0.0, atol=1e-12)
    for row in range(6):
        np.testing.assert_allclose(xi_QT[row], by_rounds(num_QP[row], won_QP[row], 5), atol=1e-6)


def test_two_things_have_the_log_odds_of_their_wins() -> None:
    xi_QT = ratings(np.array([[4.0]]), np.array([[3.0]]), 2)
    np.testing.assert_allclose(xi_QT[0, 0] - xi_QT[0, 1], np.log(3.0))
    np.testing.assert_allclose(win_probability(np.log(3.0)), 0.75)
    np.testing.assert_array_equal(ratings(np.zeros((2, 0)), np.zeros((2, 0)), 1), np.zeros((2, 1)))


def test_a_newcomer_is_placed_where_a_joint_fit_with_fixed_others_would_place_it() -> None:
    rng = np.random.default_rng(1)
    xi_QT = rng.normal(size=(5, 4))
    truth_Q = rng.normal(size=5)
    num_QT = rng.uniform(1, 5, (5, 4))
    won_QT = num_QT * win_probability(truth_Q[:, None] - xi_QT)
    np.testing.assert_allclose(rating_against(num_QT, won_QT, xi_QT), truth_Q, atol=1e-9)


def test_labels_of_a_comparison() -> None:
    difference = np.array([-0.5, 0.0, 0.2])
    np.testing.assert_allclose(outcome_of(difference, "sign"), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(outcome_of(difference, "graded"), [0.25, 0.5, 0.6])
