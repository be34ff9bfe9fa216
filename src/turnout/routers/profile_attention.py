"""This module learns what to attend to in a profile: one attention layer from a query to a candidate's rows.

`p = sum_n w_n y_n`, w a softmax over the profile of `x W . x_n W - c` and, for the candidate's mean, of 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Bools, Floats, Ints
from turnout.routers.adam import Adam, Parameters, Real, log_loss
from turnout.routers.neighbours import Array

_SHARPNESS = 12.0
"""Squared scale of W at the start: attention falls by e where the cosine falls by a twelfth."""
_DECAY = 0.02


@dataclass(frozen=True, slots=True)
class Attention:
    """Weights that say which texts are alike: W of shape (F, D), and the threshold c, of shape (1,)."""

    weight_FD: Array
    threshold: Array

    def keys(self, x_KF: Array) -> Array:
        """Return the texts as the layer sees them, shape (K, D)."""
        seen_KD: Array = x_KF @ self.weight_FD
        return seen_KD

    def read(self, x_QF: Array, key_KD: Array, known_KM: Floats, value_KM: Floats) -> tuple[Floats, Floats]:
        """Return the attended mean of values and the sum of squared shares, both of shape (Q, M).

        The last row of keys is the candidate's mean, at similarity 0. Unknown cells get no attention.
        """
        grown_QK = _grown(self.keys(x_QF) @ key_KD[:-1].T - self.threshold).astype(np.float64)
        total_QM = grown_QK @ known_KM
        squares_QM = np.square(grown_QK) @ known_KM / np.square(total_QM)
        return (grown_QK @ (value_KM * known_KM)) / total_QM, squares_QM


def learn_attention(x_NF: Array, quality_NM: Floats, rows_K: Ints, rng: np.random.Generator) -> Attention:
    """Fit the layer by the log loss of every row, read from the profile `rows_K` without the row itself.

    It starts as an exponential kernel on the embedding; the step of least held-out loss is kept, and that
    may be the start. All candidates share one layer, so what it learns serves a newcomer.
    """
    num = x_NF.shape[1]
    known_NM = np.isfinite(quality_NM)
    truth_NM = np.nan_to_num(quality_NM).astype(np.float32)
    mean_M = truth_NM.sum(axis=0) / np.maximum(known_NM.sum(axis=0), 1)
    known_KM = np.vstack([known_NM[rows_K], np.ones(mean_M.size)]).astype(np.float32)
    value_KM = np.vstack([truth_NM[rows_K], mean_M]).astype(np.float32)
    start = {
        "weight": (np.sqrt(_SHARPNESS) * np.eye(num)).astype(np.float32),
        "threshold": np.array([0.8 * _SHARPNESS], np.float32),
    }

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        is_self_QK = rows[:, None] == rows_K
        return attention_loss(
            point, (x_NF[rows], truth_NM[rows], known_NM[rows].astype(np.float32)),
            (x_NF[rows_K], value_KM, known_KM), is_self_QK,
        )  # fmt: skip

    found = Adam(num_steps=300, batch_size=256, rate=0.02, decay=_DECAY).run(start, loss, len(x_NF), rng)
    return Attention(found["weight"], found["threshold"])


def attention_loss(
    point: Parameters,
    asked: tuple[Real, Real, Real],
    profile: tuple[Real, Real, Real],
    is_self_QK: Bools,
) -> tuple[float, dict[str, Real]]:
    """Return the mean log loss and its gradient.

    `asked` are texts (Q, F), truths and known cells (Q, M); `profile` are texts (K, F), values and known
    cells (K + 1, M), the last row being the mean.
    """
    x_QF, truth_QM, known_QM = asked
    x_KF, value_KM, known_KM = profile
    query_QD, key_KD = x_QF @ point["weight"], x_KF @ point["weight"]
    logit_QK = np.where(is_self_QK, -np.inf, query_QD @ key_KD.T - point["threshold"])
    grown_QK = _grown(logit_QK.astype(x_QF.dtype))
    total_QM = grown_QK @ known_KM
    p_QM = (grown_QK @ (value_KM * known_KM)) / total_QM
    loss, by_p_QM = log_loss(p_QM, truth_QM, known_QM)
    share_QM = by_p_QM / total_QM
    by_grown_QK = share_QM @ (value_KM * known_KM).T - (share_QM * p_QM) @ known_KM.T
    by_logit_QK = (by_grown_QK * grown_QK)[:, :-1]
    return loss, {
        "weight": x_QF.T @ (by_logit_QK @ key_KD) + x_KF.T @ (by_logit_QK.T @ query_QD),
        "threshold": -by_logit_QK.sum(keepdims=True)[0],
    }


def _grown(logit_QK: Real) -> Real:
    """Return exponentials in proportion to the shares, with a last column for the mean, at logit 0."""
    full_QK = np.concatenate([logit_QK, np.zeros((len(logit_QK), 1), logit_QK.dtype)], axis=1)
    grown_QK: Real = np.exp(full_QK - full_QK.max(axis=1, keepdims=True))
    return np.maximum(grown_QK, np.asarray(1e-30, grown_QK.dtype))
