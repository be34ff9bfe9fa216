"""This module places candidates in a space of known items: a logistic regression each, with a prior.

`p(right) = sigmoid(offset + h . v)`, v of each candidate the maximum of the likelihood times a normal prior.
Source: F. B. Baker, S.-H. Kim, "Item response theory", 2004, chapter 7, for abilities given the items: the
maximum a posteriori, and its error from the information.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.adam import sigmoid

_ROUNDS = 30
_LONGEST = 3.0
_ENOUGH = 1e-8
_CELLS = 1 << 23


@dataclass(frozen=True, slots=True)
class Vectors:
    """M candidates in D dimensions."""

    mean_MD: Floats
    covariance_MDD: Floats
    """Inverse of information plus prior."""

    def predict(self, h_QD: Floats, offset_Q: Floats) -> tuple[Floats, Floats]:
        """Return probabilities and, by the delta method, their standard errors, both of shape (Q, M)."""
        if len(self.mean_MD) == 1:
            # A product with one column sums in another order than with more: a newcomer moved the last bit.
            p_QM, error_QM = self.with_added(self).predict(h_QD, offset_Q)
            return p_QM[:, :1], error_QM[:, :1]
        p_QM = sigmoid(offset_Q[:, None] + h_QD @ self.mean_MD.T)
        num = self.mean_MD.shape[1]
        outer_QS = (h_QD[:, :, None] * h_QD[:, None, :]).reshape(len(h_QD), num * num)
        variance_QM = outer_QS @ self.covariance_MDD.reshape(-1, num * num).T
        slope_QM = np.maximum(p_QM * (1.0 - p_QM), 1e-4)
        return p_QM, slope_QM * np.sqrt(np.maximum(variance_QM, 1e-12))

    def with_added(self, other: Vectors) -> Vectors:
        """Return these candidates, then the other's."""
        return Vectors(
            np.concatenate([self.mean_MD, other.mean_MD]),
            np.concatenate([self.covariance_MDD, other.covariance_MDD]),
        )


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal prior of vectors."""

    centre_D: Floats
    precision: float


def place(h_ND: Floats, offset_N: Floats, truth_NM: Floats, prior: Prior) -> Vectors:
    """Return the vectors of greatest posterior for M candidates over N items; NaN cells do not count.

    Newton's method with steps that are cut; the posterior is concave. A graded truth counts as that share of
    right answers.
    """
    num_candidates, num = truth_NM.shape[1], h_ND.shape[1]
    step = max(1, _CELLS // max(len(h_ND) + num * num, 1))
    lows = range(0, max(num_candidates, 1), step)
    parts = [_place(h_ND, offset_N, truth_NM[:, low : low + step], prior) for low in lows]
    return Vectors(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _place(h_ND: Floats, offset_N: Floats, truth_NM: Floats, prior: Prior) -> tuple[Floats, Floats]:
    num = h_ND.shape[1]
    known_NM = np.isfinite(truth_NM).astype(np.float64)
    filled_NM = np.nan_to_num(truth_NM)
    outer_NS = (h_ND[:, :, None] * h_ND[:, None, :]).reshape(len(h_ND), num * num)
    pull_DD = prior.precision * np.eye(num)
    v_MD = np.tile(prior.centre_D, (truth_NM.shape[1], 1))
    bend_MDD = np.tile(pull_DD, (truth_NM.shape[1], 1, 1))
    for _ in range(_ROUNDS):
        p_NM = sigmoid(offset_N[:, None] + h_ND @ v_MD.T)
        slope_MD = ((filled_NM - p_NM) * known_NM).T @ h_ND - prior.precision * (v_MD - prior.centre_D)
        bend_MDD = ((p_NM * (1.0 - p_NM) * known_NM).T @ outer_NS).reshape(-1, num, num) + pull_DD
        step_MD = np.linalg.solve(bend_MDD, slope_MD[:, :, None])[:, :, 0]
        longest_M1 = np.abs(step_MD).max(axis=1, keepdims=True)
        v_MD += step_MD * np.minimum(1.0, _LONGEST / np.maximum(longest_M1, 1e-300))
        if longest_M1.max(initial=0.0) < _ENOUGH:
            break
    return v_MD, np.asarray(np.linalg.inv(bend_MDD), np.float64)
