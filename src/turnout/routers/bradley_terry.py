"""This module fits the Bradley-Terry model, one fit per query, to weighted comparisons of T things.

`P(t beats u) = 1 / (1 + exp(xi_u - xi_t))`. Source: R. A. Bradley and M. E. Terry, Biometrika 39, 1952; the
likelihood is concave, and D. R. Hunter, Annals of Statistics 32(1), 2004, has its gradient and curvature.
"""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats, Ints

_ROUNDS = 25
_LONGEST = 2.0
_ENOUGH = 1e-9


def all_pairs(num: int) -> tuple[Ints, Ints]:
    """Return the places (t, u) of all pairs t < u, each of shape (P,)."""
    first, second = np.triu_indices(num, 1)
    return first, second


def ratings(num_QP: Floats, won_QP: Floats, num_things: int) -> Floats:
    """Return xi, shape (Q, T), with mean 0: the maximum of the weighted likelihood of each row.

    `num_QP` is the weight of the comparisons of each pair of `all_pairs`, `won_QP` the weight of those that
    the first of the pair won, a tie counting half. Newton's method; every pair that connects two groups of
    things needs a share of wins strictly between 0 and 1, which a prior gives.
    """
    xi_QT = np.zeros((len(num_QP), num_things))
    if num_things < 2:
        return xi_QT
    first, second = all_pairs(num_things)
    sign_PT = np.zeros((first.size, num_things))
    sign_PT[np.arange(first.size), first] = 1.0
    sign_PT[np.arange(first.size), second] = -1.0
    # Squared signs of a pair in one row: the curvature of all queries is then one product.
    outer_PS = (sign_PT[:, :, None] * sign_PT[:, None, :]).reshape(first.size, -1)
    gauge_TT = np.full((num_things, num_things), 1.0 / num_things)
    for _ in range(_ROUNDS):
        p_QP = win_probability(xi_QT[:, first] - xi_QT[:, second])
        slope_QT = (won_QP - num_QP * p_QP) @ sign_PT
        bend_QTT = ((num_QP * p_QP * (1.0 - p_QP)) @ outer_PS).reshape(-1, num_things, num_things)
        level_Q11 = np.maximum(np.trace(bend_QTT, axis1=1, axis2=2), 1e-12)[:, None, None]
        step_QT = np.linalg.solve(bend_QTT + level_Q11 * gauge_TT, slope_QT[:, :, None])[:, :, 0]
        longest_Q1 = np.abs(step_QT).max(axis=1, keepdims=True)
        xi_QT += step_QT * np.minimum(1.0, _LONGEST / np.maximum(longest_Q1, 1e-300))
        if longest_Q1.max(initial=0.0) < _ENOUGH:
            break
    centred_QT: Floats = xi_QT - xi_QT.mean(axis=1, keepdims=True)
    return centred_QT


def rating_against(num_QT: Floats, won_QT: Floats, xi_QT: Floats) -> Floats:
    """Return the rating of one newcomer against T known ratings, shape (Q,).

    It solves `sum_t num_t sigma(xi - xi_t) = sum_t won_t`, whose left side rises with xi, by halving.
    """
    low_Q, high_Q = np.full(len(xi_QT), -30.0), np.full(len(xi_QT), 30.0)
    won_Q = won_QT.sum(axis=1)
    for _ in range(60):
        middle_Q = 0.5 * (low_Q + high_Q)
        is_low_Q = (num_QT * win_probability(middle_Q[:, None] - xi_QT)).sum(axis=1) < won_Q
        low_Q, high_Q = np.where(is_low_Q, middle_Q, low_Q), np.where(is_low_Q, high_Q, middle_Q)
    xi_Q: Floats = 0.5 * (low_Q + high_Q)
    return xi_Q


def win_probability(gap: Floats) -> Floats:
    """Return `1 / (1 + exp(-gap))` without overflow."""
    p: Floats = 0.5 * (1.0 + np.tanh(0.5 * gap))
    return p


def outcome_of(difference: Floats, labels: str) -> Floats:
    """Return how much of a comparison was won, in [0, 1], from a difference of qualities in [-1, 1].

    `sign` counts a win, a tie as half, and a loss; `graded` is `(1 + difference) / 2`, for which the
    probability of winning tells the expected difference.
    """
    return 0.5 * (1.0 + (np.sign(difference) if labels == "sign" else difference))
