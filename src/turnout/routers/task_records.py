"""This module records what candidates did on one task: all that is kept of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.means import column_mean, variance_of
from turnout.routers.smoothing import toward
from turnout.routers.targets import Targets

_COIN = 0.25
_NEVER = 0.5
"""Error where a candidate was never tried on the task: the deviation of a fair coin."""
_BEHIND = 1e-6


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task: its routing vector, its level, and sums over the rows of each of M candidates."""

    vector_F: Floats
    level: Floats
    """Mean over the candidates' means of the rows it was learned from, of shape (1,)."""
    num_M: Floats
    quality_M: Floats
    square_M: Floats
    paid_M: Floats
    """Number of known costs."""
    ratio_M: Floats
    """Sum of costs over their lines."""

    def expected(self, prior: float) -> tuple[Floats, Floats]:
        """Return the qualities and their standard errors, each of shape (M,).

        An average is drawn toward the level by `prior` rows, and one more outcome of a fair coin is in its
        variance. Who was never tried here stands at the level, or just below the best who was.
        """
        weight_M = np.maximum(self.num_M + prior, 1e-12)
        tried_M = self.num_M > 0
        quality_M = np.where(tried_M, (self.quality_M + prior * self.level) / weight_M, self.level)
        best = quality_M[tried_M].max(initial=-np.inf)
        quality_M = np.where(tried_M, quality_M, np.minimum(quality_M, max(best - _BEHIND, 0.0)))
        around_M = self.square_M - 2.0 * quality_M * self.quality_M + quality_M**2 * self.num_M
        variance_M = (np.maximum(around_M, 0.0) + _COIN) / (self.num_M + 1.0)
        return quality_M, np.where(tried_M, np.sqrt(variance_M / weight_M), _NEVER)

    def ratios(self, usual_M: Floats, prior: float) -> Floats:
        """Return costs over their lines, drawn toward the usual ones; NaN where none is known."""
        return toward(self.paid_M, self.ratio_M, usual_M, prior)

    def placed(self, place: Ints, num: int) -> TaskRecord:
        """Return the record with each candidate at its place in a pool of `num`."""
        sums = [np.zeros(num) for _ in range(5)]
        for into, of in zip(sums, self._sums(), strict=True):
            into[place] = of
        return TaskRecord(self.vector_F, self.level, *sums)

    def with_candidate(self, over: Targets) -> TaskRecord:
        """Return the record with one more candidate, summed over its rows of this task."""
        pairs = zip(self._sums(), _sums_of(over), strict=True)
        return TaskRecord(self.vector_F, self.level, *(np.concatenate(pair) for pair in pairs))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `record_from` reads it back."""
        return {f.name: getattr(self, f.name) for f in fields(TaskRecord)}

    def _sums(self) -> tuple[Floats, ...]:
        return self.num_M, self.quality_M, self.square_M, self.paid_M, self.ratio_M


def known_of(records: Sequence[TaskRecord]) -> tuple[Floats, Floats]:
    """Return the variance of one quality and the observed rows of each candidate over all tasks."""
    num_M, sum_M, square_M = (
        np.sum([getattr(one, name) for one in records], axis=0) for name in ("num_M", "quality_M", "square_M")
    )
    mean_M = sum_M / np.maximum(num_M, 1.0)
    return variance_of(num_M, mean_M, np.maximum(square_M - num_M * mean_M**2, 0.0)), num_M


def record_from(arrays: Mapping[str, np.ndarray]) -> TaskRecord:
    """Rebuild from `TaskRecord.arrays`."""
    return TaskRecord(*(arrays[f.name] for f in fields(TaskRecord)))


def record_of(vector_F: Floats, over: Targets) -> TaskRecord:
    """Record a task from its rows, costs over their lines."""
    sums = _sums_of(over)
    level = column_mean(column_mean(over.quality_QM)[:, None])
    return TaskRecord(vector_F, level, *sums)


def _sums_of(over: Targets) -> tuple[Floats, ...]:
    known_NM, paid_NM = np.isfinite(over.quality_QM), np.isfinite(over.cost_usd_QM)
    value_NM = np.where(known_NM, over.quality_QM, 0.0)
    return (
        known_NM.sum(axis=0).astype(np.float64),
        value_NM.sum(axis=0),
        np.square(value_NM).sum(axis=0),
        paid_NM.sum(axis=0).astype(np.float64),
        np.where(paid_NM, over.cost_usd_QM, 0.0).sum(axis=0),
    )
