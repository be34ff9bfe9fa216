"""This module learns a vector per task from the task's own rows, and shares a text among tasks by them.

Source: M. Muqeeth et al., PHATGOOSE, arXiv 2402.05859, sections 3.1 and 3.2, which S18 (arXiv 2511.01831)
takes over for continual learning: a gate `sigmoid(v . u)` trained on one task with everything else frozen;
then both sides standardised, scores `v . u / sqrt(F)`, and a softmax over the best.
"""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats

_PENALTY = 0.01
_ROUNDS = 20
_ENOUGH = 1e-9


def learn_vector(u_NF: Floats) -> Floats:
    """Return the v of least `mean log(1 + e^(-v . u)) + penalty / 2 |v|^2` over the rows of one task.

    The gate wants to be open on all of them, and the penalty keeps it finite. Newton's method; the loss is
    strictly convex, so that v does not depend on where it starts.
    """
    v_F = np.zeros(u_NF.shape[1])
    for _ in range(_ROUNDS):
        shut_N = 1.0 / (1.0 + np.exp(u_NF @ v_F))
        slope_F = _PENALTY * v_F - u_NF.T @ shut_N / len(u_NF)
        bend_FF = (u_NF.T * (shut_N * (1.0 - shut_N))) @ u_NF / len(u_NF) + _PENALTY * np.eye(v_F.size)
        step_F = np.linalg.solve(bend_FF, slope_F)
        v_F -= step_F
        if np.abs(step_F).max(initial=0.0) < _ENOUGH:
            break
    return v_F


def shares_of(u_QF: Floats, v_DF: Floats, top_k: int) -> Floats:
    """Return what each task has of each text, shape (Q, D): a softmax over the `top_k` best scores.

    A row of zeros, of which nothing is known, is shared among all tasks alike.
    """
    score_QD = standard_rows(u_QF) @ standard_rows(v_DF).T / np.sqrt(max(u_QF.shape[1], 1))
    is_blank_Q = np.asarray(~u_QF.any(axis=1))
    if top_k < v_DF.shape[0]:
        # Ties by rounding fall alike whatever the batch.
        order_QD = np.argsort(-np.round(score_QD, 9), axis=1, kind="stable")
        score_QD = score_QD.copy()
        np.put_along_axis(score_QD, order_QD[:, top_k:], -np.inf, axis=1)
    power_QD = np.exp(score_QD - score_QD.max(axis=1, keepdims=True))
    share_QD: Floats = power_QD / power_QD.sum(axis=1, keepdims=True)
    share_QD[is_blank_Q] = 1.0 / v_DF.shape[0]
    return share_QD


def standard_rows(x_NF: Floats) -> Floats:
    """Return each row less its mean, over its deviation; a constant row becomes 0."""
    centred_NF = x_NF - x_NF.mean(axis=1, keepdims=True)
    deviation_N1 = np.sqrt(np.square(centred_NF).mean(axis=1, keepdims=True))
    found_NF: Floats = centred_NF / np.where(deviation_N1 > 1e-12, deviation_N1, 1.0)
    return found_NF
