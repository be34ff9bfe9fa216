"""This module averages the outcomes of neighbours: the mathematics of the nearest-neighbour router.

Source: E. A. Nadaraya, "On estimating regression", Theory of Probability 9(1), 1964, for the weighted
mean; W. James, C. Stein, "Estimation with quadratic loss", 1961, for the pull toward a common one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Bools, Floats, Ints
from turnout.routers.means import Means
from turnout.routers.neighbours import Array
from turnout.routers.targets import Targets

_WIDE = 512
_BATCH = 8
_ROWS_PER_NEIGHBOUR = 32
"""See `Columns.is_wide`: a gathered number costs about as much as so many products."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How neighbours are weighed."""

    k: int
    """Neighbours that are looked at."""
    prior: float
    """Weight of the candidate's mean, in neighbours of similarity 1."""
    sharpness: float
    """Weight of a neighbour is its similarity above the floor to this power; 0 weighs all alike."""
    floor: float
    """Similarity below which a neighbour does not count."""

    def weigh(self, similarity_QK: Array) -> Floats:
        """Return the weights in [0, 1], float64 of shape (Q, K)."""
        similarity = np.minimum(similarity_QK.astype(np.float64), 1.0)
        above = np.maximum((similarity - self.floor) / (1.0 - self.floor), 0.0)
        weight_QK: Floats = above**self.sharpness * (similarity >= self.floor)
        return weight_QK


@dataclass(frozen=True, slots=True)
class Answer:
    """Smoothed outcomes, each of shape (Q, M)."""

    quality_QM: Floats
    spread_QM: Floats
    cost_QM: Floats
    """In the unit of the stored costs."""
    latency_s_QM: Floats


def stack(answers: Sequence[Answer], *, axis: int) -> Answer:
    """Return the answers under one another (axis 0) or side by side (axis 1)."""
    return Answer(*(np.concatenate([getattr(a, f.name) for a in answers], axis=axis) for f in fields(Answer)))


@dataclass(frozen=True, slots=True)
class Columns:
    """Outcomes of N queries laid out so that one gather and one product average them all.

    The blocks of M columns are quality, its square, then cost and latency where any is known.
    """

    value_NC: Floats
    """Zero where not observed."""
    known_NC: Floats | None
    """1 where observed, 0 where not; None where every cell is."""
    has_cost: bool
    has_latency: bool

    def smooth(self, index_QK: Ints, weight_QK: Floats, means: Means, prior: float) -> Answer:
        """Return `(sum w v + prior mean) / (sum w + prior)` over observed cells, per query and candidate."""
        num = means.quality.size
        sums = _scattered if self.is_wide(*index_QK.shape) else _gathered
        value_QC = sums(weight_QK, index_QK, self.value_NC)
        if self.known_NC is None:
            total_QC = np.broadcast_to(weight_QK.sum(axis=1)[:, None], value_QC.shape)
            twice_QM = (weight_QK**2).sum(axis=1)[:, None]
        else:
            total_QC = sums(weight_QK, index_QK, self.known_NC)
            twice_QM = sums(weight_QK**2, index_QK, self.known_NC[:, :num])
        total_QM = total_QC[:, :num]
        quality_QM = toward(total_QM, value_QC[:, :num], means.quality, prior)
        # sum w (v - q)^2 around the answer q, expanded.
        around_QM = (
            value_QC[:, num : 2 * num] - 2.0 * quality_QM * value_QC[:, :num] + quality_QM**2 * total_QM
        )
        others = iter(range(2 * num, value_QC.shape[1], num))

        def rest(mean_M: Floats, has: bool) -> Floats:
            if not has:
                return np.broadcast_to(mean_M, quality_QM.shape)
            at = next(others)
            return toward(total_QC[:, at : at + num], value_QC[:, at : at + num], mean_M, prior)

        return Answer(
            quality_QM,
            standard_error(around_QM, total_QM, twice_QM, quality_QM, means, prior),
            rest(means.cost_usd, self.has_cost),
            rest(means.latency_s, self.has_latency),
        )

    def is_wide(self, num_queries: int, k: int) -> bool:
        """Return whether one product with all rows is quicker than a gather of each query's neighbours."""
        num_rows, num_columns = self.value_NC.shape
        return num_columns >= _WIDE and num_queries >= _BATCH and num_rows <= _ROWS_PER_NEIGHBOUR * k


def columns_of(targets: Targets) -> Columns:
    """Lay out the outcomes; costs and latencies of which none is known are left out."""
    quality_NM = targets.quality_QM
    has_cost = bool(np.isfinite(targets.cost_usd_QM).any())
    has_latency = bool(np.isfinite(targets.latency_s_QM).any())
    blocks = [quality_NM, quality_NM**2]
    blocks += [targets.cost_usd_QM] if has_cost else []
    blocks += [targets.latency_s_QM] if has_latency else []
    value_NC = np.concatenate(blocks, axis=1)
    is_known_NC: Bools = np.isfinite(value_NC)
    known_NC = None if is_known_NC.all() else is_known_NC.astype(np.float64)
    return Columns(np.where(is_known_NC, value_NC, 0.0), known_NC, has_cost, has_latency)


def toward(total_QM: Floats, value_QM: Floats, mean_M: Floats, prior: float) -> Floats:
    """Return `(value + prior mean) / (total + prior)`; the mean where both weights are 0.

    A candidate that was never observed (its mean is NaN) stays NaN.
    """
    weight_QM = total_QM + prior
    pulled_QM = value_QM + (prior * mean_M if prior > 0.0 else 0.0)
    if weight_QM.size and weight_QM.min() > 0.0:
        smoothed_QM: Floats = pulled_QM / weight_QM
    else:
        is_empty_QM = weight_QM <= 0.0
        smoothed_QM = np.where(is_empty_QM, mean_M, pulled_QM / np.where(is_empty_QM, 1.0, weight_QM))
    return np.where(np.isnan(mean_M), np.nan, smoothed_QM)


def standard_error(
    around_QM: Floats, total_QM: Floats, twice_QM: Floats, quality_QM: Floats, means: Means, prior: float
) -> Floats:
    """Return the standard error of the smoothed quality, shape (Q, M).

    The variance of one outcome is the weighted one around the answer, the prior counting as `prior`
    outcomes of the candidate's overall variance; the error is
    `sqrt(variance * (sum w^2 + prior) + prior^2 error_mean^2) / (sum w + prior)`: the overall mean, which
    the prior counts so often, is not known better than it is. Without any weight it is the overall
    deviation; for a candidate that was never observed, infinity.
    """
    weight_QM = np.maximum(total_QM + prior, 1e-12)
    pull_QM = prior * (means.variance + (means.quality - quality_QM) ** 2)
    variance_QM = np.maximum(around_QM + pull_QM, 0.0) / weight_QM
    of_mean_M = prior**2 * means.variance / np.maximum(means.num, 1.0)
    error_QM = np.sqrt(variance_QM * (twice_QM + prior) + of_mean_M) / weight_QM
    error_QM = np.where(total_QM + prior > 0.0, error_QM, np.sqrt(means.variance))
    return np.where(means.num > 0, error_QM, np.inf)


def _gathered(weight_QK: Floats, index_QK: Ints, value_NC: Floats) -> Floats:
    """Return the weighted sums over each query's own rows, shape (Q, C)."""
    summed_QC: Floats = np.matmul(weight_QK[:, None, :], value_NC[index_QK])[:, 0]
    return summed_QC


def _scattered(weight_QK: Floats, index_QK: Ints, value_NC: Floats) -> Floats:
    """Do the same as one product, with a weight of 0 for every row that is no neighbour."""
    weight_QN = np.zeros((len(index_QK), len(value_NC)))
    np.put_along_axis(weight_QN, index_QK, weight_QK, axis=1)
    summed_QC: Floats = weight_QN @ value_NC
    return summed_QC
