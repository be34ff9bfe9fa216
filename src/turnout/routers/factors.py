"""This module learns a few directions of text along which candidates differ: low-rank factors by descent.

`score(x, m) = (x W) . v_m + c_m`, fitted to outcomes by the log loss (EmbedLLM) or to comparisons of pairs
(RouteLLM), plus `penalty / 2` times the squares of W and v, in units of one observed outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.adam import Adam, Loss, Parameters, Real, log_loss, sigmoid
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array

_START = 0.3
_EDGE = 0.02


@dataclass(frozen=True, slots=True)
class Directions:
    """Weights of shape (F, D) that read a text as D numbers; a last number is always 1."""

    weight_FD: Array

    def read(self, x_QF: Array) -> Floats:
        """Return the numbers of each text, shape (Q, D + 1)."""
        z_QD = (x_QF @ self.weight_FD).astype(np.float64)
        return np.concatenate([z_QD, np.ones((len(x_QF), 1))], axis=1)

    def standard(self, x_NF: Array, v_MD: Floats) -> tuple[Directions, Floats]:
        """Return the same scores with directions of root mean square 1 over the rows."""
        size_D = np.sqrt(np.square(x_NF @ self.weight_FD).mean(axis=0)) + 1e-6
        return Directions((self.weight_FD / size_D).astype(np.float32)), v_MD * np.append(size_D, 1.0)


def learn_factors(
    x_NF: Array, quality_NM: Floats, num_dims: int, penalty: float, rng: np.random.Generator
) -> tuple[Directions, Floats]:
    """Fit to outcomes; return directions and vectors of shape (M, D + 1)."""
    mean_M = np.clip(np.nan_to_num(column_mean(quality_NM), nan=0.5), _EDGE, 1.0 - _EDGE)
    known_NM = np.isfinite(quality_NM).astype(np.float32)
    truth_NM = np.nan_to_num(quality_NM).astype(np.float32)
    shrink = penalty / max(float(known_NM.sum()), 1.0)

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        return outcome_loss(point, x_NF[rows], truth_NM[rows], known_NM[rows], shrink)

    return _descend(x_NF, np.log(mean_M / (1.0 - mean_M)), num_dims, loss, rng)


def learn_preferences(
    x_NF: Array,
    won_NP: Floats,
    pairs: tuple[Ints, Ints],
    num_candidates: int,
    settings: tuple[int, float],
    rng: np.random.Generator,
) -> tuple[Directions, Floats]:
    """Fit to comparisons: the share that the first of each pair won, NaN where unknown; as `learn_factors`.

    `settings` are the number of directions and the penalty.
    """
    num_dims, penalty = settings
    known_NP = np.isfinite(won_NP).astype(np.float32)
    truth_NP = np.nan_to_num(won_NP).astype(np.float32)
    sign_PM = np.zeros((won_NP.shape[1], num_candidates), np.float32)
    sign_PM[np.arange(len(sign_PM)), pairs[0]] = 1.0
    sign_PM[np.arange(len(sign_PM)), pairs[1]] = -1.0
    shrink = penalty / max(float(known_NP.sum()), 1.0)

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        return preference_loss(point, x_NF[rows], truth_NP[rows], known_NP[rows], sign_PM, shrink)

    return _descend(x_NF, np.zeros(num_candidates), num_dims, loss, rng)


def outcome_loss(
    point: Parameters, x_NF: Real, truth_NM: Real, known_NM: Real, shrink: float
) -> tuple[float, dict[str, Real]]:
    """Return the mean log loss of outcomes with the penalty, and its gradient."""
    z_ND = x_NF @ point["weight"]
    p_NM = sigmoid(z_ND @ point["vector"].T + point["constant"])
    loss, by_p_NM = log_loss(p_NM, truth_NM, known_NM)
    by_score_NM = by_p_NM * p_NM * (1.0 - p_NM)
    return _with_penalty(point, x_NF, z_ND, loss, by_score_NM, shrink)


def preference_loss(
    point: Parameters, x_NF: Real, won_NP: Real, known_NP: Real, sign_PM: Real, shrink: float
) -> tuple[float, dict[str, Real]]:
    """Return the mean log loss of comparisons with the penalty, and its gradient."""
    z_ND = x_NF @ point["weight"]
    score_NM = z_ND @ point["vector"].T + point["constant"]
    p_NP = sigmoid(score_NM @ sign_PM.T)
    loss, by_p_NP = log_loss(p_NP, won_NP, known_NP)
    by_score_NM = (by_p_NP * p_NP * (1.0 - p_NP)) @ sign_PM
    return _with_penalty(point, x_NF, z_ND, loss, by_score_NM, shrink)


def _with_penalty(
    point: Parameters, x_NF: Real, z_ND: Real, loss: float, by_score_NM: Real, shrink: float
) -> tuple[float, dict[str, Real]]:
    squares = sum(float(np.square(point[name]).sum()) for name in ("weight", "vector"))
    return loss + 0.5 * shrink * squares, {
        "weight": x_NF.T @ (by_score_NM @ point["vector"]) + shrink * point["weight"],
        "vector": by_score_NM.T @ z_ND + shrink * point["vector"],
        "constant": by_score_NM.sum(axis=0),
    }


def _descend(
    x_NF: Array, constant_M: Floats, num_dims: int, loss: Loss, rng: np.random.Generator
) -> tuple[Directions, Floats]:
    start = {
        "weight": (_START * rng.normal(size=(x_NF.shape[1], num_dims))).astype(np.float32),
        "vector": (_START * rng.normal(size=(constant_M.size, num_dims))).astype(np.float32),
        "constant": constant_M.astype(np.float32),
    }
    found = Adam(num_steps=600, rate=0.02).run(start, loss, len(x_NF), rng)
    v_MD = np.concatenate([found["vector"], found["constant"][:, None]], axis=1).astype(np.float64)
    return Directions(found["weight"]).standard(x_NF, v_MD)
