"""This module learns the items of a multidimensional item response model from the text of queries.

`p(m right on x) = sigmoid(a(x) . theta_m - b(x))`: discriminations `a(x) = softplus(x A + a0)`, above 0,
difficulty `b(x) = x beta + b0`, abilities theta. Source: M. D. Reckase, "Multidimensional item response
theory", 2009, chapter 4, the compensatory model; IRT-Router (MIRT) for items from embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.adam import Adam, Parameters, Real, log_loss, sigmoid
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array

_SPREAD = 0.3
"""Deviation of the abilities at the start, so that the dimensions differ."""
_EDGE = 0.02


@dataclass(frozen=True, slots=True)
class Items:
    """How text becomes items: weights of shapes (F, D), (D,), (F,), and a number of shape (1,)."""

    slope_FD: Array
    slope_D: Array
    hard_F: Array
    hard: Array

    def read(self, x_QF: Array) -> tuple[Floats, Floats]:
        """Return discriminations (Q, D), above 0, and difficulties (Q,)."""
        a_QD = softplus(x_QF @ self.slope_FD + self.slope_D)
        return a_QD.astype(np.float64), (x_QF @ self.hard_F + self.hard).astype(np.float64)


def learn_items(
    x_NF: Array, quality_NM: Floats, num_dims: int, penalty: float, rng: np.random.Generator
) -> tuple[Items, Floats]:
    """Fit items and abilities together; return the items and abilities of shape (M, D).

    The loss is the log loss plus `penalty / 2` times the squares of the weights on the embedding.

    The start has every item alike and abilities from the means, so it predicts each candidate's mean.
    """
    mean_M = np.clip(np.nan_to_num(column_mean(quality_NM), nan=0.5), _EDGE, 1.0 - _EDGE)
    logit_M = np.log(mean_M / (1.0 - mean_M))
    one = float(np.log(np.expm1(1.0)))
    ability_MD = (logit_M - logit_M.mean())[:, None] / num_dims + _SPREAD * rng.normal(
        size=(mean_M.size, num_dims)
    )
    start = {
        "slope_FD": (0.01 * rng.normal(size=(x_NF.shape[1], num_dims))).astype(np.float32),
        "slope_D": np.full(num_dims, one, np.float32),
        "hard_F": np.zeros(x_NF.shape[1], np.float32),
        "hard": np.array([-logit_M.mean()], np.float32),
        "ability_MD": ability_MD.astype(np.float32),
    }
    known_NM = np.isfinite(quality_NM).astype(np.float32)
    truth_NM = np.nan_to_num(quality_NM).astype(np.float32)
    shrink = penalty / max(float(known_NM.sum()), 1.0)

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        return item_loss(point, x_NF[rows], truth_NM[rows], known_NM[rows], shrink)

    found = Adam(num_steps=600, rate=0.02).run(start, loss, len(x_NF), rng)
    items = Items(found["slope_FD"], found["slope_D"], found["hard_F"], found["hard"])
    return items, found["ability_MD"].astype(np.float64)


def item_loss(
    point: Parameters, x_NF: Real, truth_NM: Real, known_NM: Real, shrink: float
) -> tuple[float, dict[str, Real]]:
    """Return the mean log loss plus half `shrink` times the squared weights, and the gradient."""
    z_ND = x_NF @ point["slope_FD"] + point["slope_D"]
    a_ND = softplus(z_ND)
    b_N = x_NF @ point["hard_F"] + point["hard"]
    p_NM = sigmoid(a_ND @ point["ability_MD"].T - b_N[:, None])
    loss, by_p_NM = log_loss(p_NM, truth_NM, known_NM)
    by_logit_NM = by_p_NM * p_NM * (1.0 - p_NM)
    by_z_ND = (by_logit_NM @ point["ability_MD"]) * sigmoid(z_ND)
    by_b_N = -by_logit_NM.sum(axis=1)
    squares = sum(float(np.square(point[name]).sum()) for name in ("slope_FD", "hard_F"))
    return loss + 0.5 * shrink * squares, {
        "slope_FD": x_NF.T @ by_z_ND + shrink * point["slope_FD"],
        "slope_D": by_z_ND.sum(axis=0),
        "hard_F": x_NF.T @ by_b_N + shrink * point["hard_F"],
        "hard": by_b_N.sum(keepdims=True),
        "ability_MD": by_logit_NM.T @ a_ND,
    }


def softplus(z: Real) -> Real:
    """Return `log(1 + exp(z))` without overflow."""
    rounded: Real = np.logaddexp(z.dtype.type(0.0), z)
    return rounded
