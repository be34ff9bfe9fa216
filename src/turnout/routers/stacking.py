"""This module weighs several predictions of the same outcomes by how they did where they had not looked.

What member k predicts is split, relative to a base that does not depend on the query (the candidate's mean):
a common part, how easy it thinks the query is for the pool, and an own part, how far a candidate stands out
on it. Each part has a weight of its own, at least 0:

    quality_qm = base_m + sum_k [ common_k c_kq + own_k (f_kqm - base_m - c_kq) ],
    c_kq = mean over the pool of (f_kqm - base_m)

The own parts alone decide who is chosen, and there noise is larger than signal: with one weight for both
the easy common part would lend its trust to the hard one.

Source: D. H. Wolpert, "Stacked generalization", Neural Networks 5(2), 1992; L. Breiman, "Stacked
regressions", Machine Learning 24(1), 1996, for weights that are not negative. The split is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Bools, Floats

LARGEST = 1000.0
"""Largest weight; whoever needs a larger one says next to nothing."""

_NOTHING = 1e-6
"""A part that is smaller than this everywhere is rounding, and says nothing."""

_RIDGE = 1e-3
"""Share of the mean square of a column that is added to it, so that twins share their weight."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much of each of K members is believed."""

    own_K: Floats
    """Of what tells candidates apart, each at least 0."""
    common_K: Floats
    """Of how easy the query is for all, each at least 0."""
    cost_K: Floats
    """Of cost and latency; sums to 1."""

    def mix(self, quality_KQM: Floats, base_QM: Floats, pool_M: Bools) -> Floats:
        """Return the blended quality, shape (Q, M); `pool_M` says whose mean is the common part."""
        common_KQ1, own_KQM = parts(quality_KQM, base_QM, pool_M)
        mixed_QM: Floats = base_QM + _summed(self.own_K, own_KQM) + _summed(self.common_K, common_KQ1)
        return mixed_QM

    def spread(
        self,
        mixed_QM: Floats,
        quality_KQM: Floats,
        spread_KQM: Floats | Sequence[Floats],
        base_QM: Floats,
        error_QM: Floats,
    ) -> Floats:
        """Return the deviation of the mixture of members, shape (Q, M).

        `spread^2 = sum_k v_k (s_k^2 + (f_k - mixed)^2)`: members that disagree widen it. The shares v are the
        own weights; what they lack to 1 belongs to the base, whose standard error is `error_QM`.
        """
        rest = max(1.0 - float(self.own_K.sum()), 0.0)
        total = rest + float(self.own_K.sum())
        square_QM = rest * (error_QM**2 + (base_QM - mixed_QM) ** 2)
        for share, quality_QM, spread_QM in zip(self.own_K, quality_KQM, spread_KQM, strict=True):
            if share > 0.0:
                square_QM = square_QM + share * (spread_QM**2 + (quality_QM - mixed_QM) ** 2)
        wide_QM: Floats = np.sqrt(square_QM / total)
        return wide_QM


def _summed(weight_K: Floats, part_KQM: Floats) -> Floats:
    """Return the weighted sum over members: `tensordot`, without what it costs to look at the axes."""
    summed_QM: Floats = (weight_K @ part_KQM.reshape(weight_K.size, -1)).reshape(part_KQM.shape[1:])
    return summed_QM


def parts(quality_KQM: Floats, base_QM: Floats, pool_M: Bools) -> tuple[Floats, Floats]:
    """Return the common part, shape (K, Q, 1), and the own part, shape (K, Q, M), of every member."""
    off_KQM = quality_KQM - base_QM
    # A copy of the pool's columns, so that a newcomer beside them changes no bit of their mean.
    inside_KQP = np.ascontiguousarray(off_KQM[:, :, pool_M])
    common_KQ1 = inside_KQP.mean(axis=2, keepdims=True) if pool_M.any() else np.zeros((*off_KQM.shape[:2], 1))
    return common_KQ1, off_KQM - common_KQ1


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one fold says about K members: enough to weigh any of them, on any set of folds."""

    gram_CC: Floats
    """Products of the 2K parts with each other: own parts first, then common ones."""
    moment_C: Floats
    """Products of the parts with what came true beyond the base."""
    cost_error_K: Floats
    """Summed squared error of cost, in units of each candidate's mean."""

    def take(self, members: Sequence[int]) -> Evidence:
        """Return what is said about some of the members."""
        at = np.array(members, np.int64)
        both = np.concatenate([at, at + self.cost_error_K.size])
        return Evidence(self.gram_CC[np.ix_(both, both)], self.moment_C[both], self.cost_error_K[at])


@dataclass(frozen=True, slots=True)
class Held:
    """Predictions for Q queries that took no part in learning them, and what came true."""

    quality_KQM: Floats
    cost_KQM: Floats
    base_QM: Floats
    """The candidates' means in what was learned from; NaN for a stranger."""
    truth_QM: Floats
    cost_usd_QM: Floats

    def evidence(self) -> Evidence:
        """Return what these queries say about the members."""
        known_QM = np.isfinite(self.truth_QM) & np.isfinite(self.base_QM)
        pool_M: Bools = np.asarray(np.isfinite(self.base_QM).all(axis=0))
        common_KQ1, own_KQM = parts(self.quality_KQM, self.base_QM, pool_M)
        column = [np.broadcast_to(part_Q1, known_QM.shape)[known_QM] for part_Q1 in common_KQ1]
        x_NC = np.stack([own_QM[known_QM] for own_QM in own_KQM] + column, axis=1)
        # Without a text to tell queries apart, members differ from the base by rounding alone.
        x_NC[:, np.abs(x_NC).max(axis=0, initial=0.0) < _NOTHING] = 0.0
        beyond_N = (self.truth_QM - self.base_QM)[known_QM]
        return Evidence(x_NC.T @ x_NC, x_NC.T @ beyond_N, self._cost_errors())

    def _cost_errors(self) -> Floats:
        known_QM = np.isfinite(self.cost_usd_QM)
        num_M = np.maximum(known_QM.sum(axis=0), 1)
        unit_M = np.where(known_QM, self.cost_usd_QM, 0.0).sum(axis=0) / num_M
        off_KQM = (self.cost_KQM - self.cost_usd_QM) / np.where(unit_M > 0, unit_M, 1.0)
        errors_K: Floats = np.where(np.isfinite(off_KQM), off_KQM**2, 0.0).sum(axis=(1, 2))
        return errors_K


def learn_weights(folds: Sequence[Evidence]) -> Weights:
    """Return the weights of least squared error over some folds; cost is left to its best member."""
    weight_C = nonnegative(
        np.sum([fold.gram_CC for fold in folds], axis=0), np.sum([fold.moment_C for fold in folds], axis=0)
    )
    num = weight_C.size // 2
    cost_K = np.zeros(num)
    cost_K[int(np.sum([fold.cost_error_K for fold in folds], axis=0).argmin())] = 1.0
    weight_C = np.minimum(weight_C, LARGEST)
    return Weights(weight_C[:num], weight_C[num:], cost_K)


def nonnegative(gram_CC: Floats, moment_C: Floats) -> Floats:
    """Return the w >= 0 of least `w' G w - 2 w' m`: the active sets of Lawson and Hanson, 1974, chapter 23.

    G is made a little heavier on its diagonal, so that twins share their weight. A column that is zero
    everywhere has weight 0.
    """
    size_C = np.diag(gram_CC)
    is_empty_C = size_C <= 1e-12 * float(size_C.max(initial=0.0))
    solid_CC = gram_CC + np.diag(_RIDGE * size_C)
    weight_C, is_free_C = np.zeros(moment_C.size), np.zeros(moment_C.size, np.bool_)
    floor = 1e-10 * float(np.abs(moment_C).max(initial=0.0))
    for _ in range(10 * moment_C.size):
        gain_C = np.where(is_free_C | is_empty_C, -np.inf, moment_C - solid_CC @ weight_C)
        if not gain_C.size or gain_C.max() <= floor:
            break
        is_free_C[gain_C.argmax()] = True
        weight_C = _retreat(solid_CC, moment_C, weight_C, is_free_C)
    return weight_C


def _retreat(solid_CC: Floats, moment_C: Floats, weight_C: Floats, is_free_C: Bools) -> Floats:
    """Move toward the least squares of the free columns; those that would turn negative are let go."""
    while True:
        goal_C = np.zeros(weight_C.size)
        at = np.flatnonzero(is_free_C)
        goal_C[at] = np.linalg.solve(solid_CC[np.ix_(at, at)], moment_C[at])
        is_low_C = is_free_C & (goal_C <= 0.0)
        if not is_low_C.any():
            return goal_C
        step = float((weight_C[is_low_C] / (weight_C[is_low_C] - goal_C[is_low_C])).min())
        weight_C = weight_C + step * (goal_C - weight_C)
        is_free_C &= (weight_C > 1e-14) & ~(is_low_C & (weight_C <= weight_C[is_low_C].min() + 1e-15))
        weight_C = np.where(is_free_C, weight_C, 0.0)
