"""This module turns the scores of a network into qualities: a line per candidate, drawn on held-out rows.

What a network says of the rows it learned is surer than what it says of others, and a similarity is no
quality at all. So the slope of quality over score comes from rows that the network did not learn, pooled
over the candidates; a candidate's own slope counts as far as its rows bear it. A slope below 0 is 0: where
scores say nothing on held-out rows, every candidate has its mean.

Source: W. James, C. Stein, 1961, for the pull toward a common slope; the standard error of a regression line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Bools, Floats
from turnout.routers.means import Means

_PRIOR = 30.0
"""Rows' worth of the pooled slope in a candidate's own."""
_PRIOR_NOISE = 10.0
"""Rows' worth of a candidate's variance in its residual noise."""
_FLAT = 1e-8
"""Mean square below which scores are equal but for rounding."""
_LEAST_ERROR = 1e-6


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The lines of M candidates; every array has shape (M,)."""

    level: Floats
    """Mean quality over all rows: what a score at the centre is worth."""
    centre: Floats
    """Mean score over held-out rows."""
    slope: Floats
    """Quality per score, at least 0."""
    level_error: Floats
    """Standard error of the level."""
    slope_error: Floats
    deviation: Floats
    """Standard deviation of one quality: the spread where nothing is known of a query."""

    def apply(
        self, score_QM: Floats, is_blank_Q: Bools, *, low: float = 0.0, high: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Return quality, clipped, and its spread, both (Q, M); a blank query has the mean and no more."""
        away_QM = np.where(is_blank_Q[:, None], 0.0, score_QM - self.centre)
        quality_QM = np.clip(self.level + self.slope * away_QM, low, high)
        spread_QM = np.sqrt(self.level_error**2 + (self.slope_error * away_QM) ** 2)
        return quality_QM, np.where(is_blank_Q[:, None], np.maximum(self.deviation, spread_QM), spread_QM)

    def with_added(self, other: ScoreScale) -> ScoreScale:
        """Return these candidates, then the other's."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(ScoreScale))
        return ScoreScale(*(np.concatenate(pair) for pair in pairs))

    def newcomer(self, score_N1: Floats, quality_N1: Floats, means: Means) -> ScoreScale:
        """Return the line of one more candidate, whose probe rows made its scores.

        Rows that made a score say nothing of its slope, so the newcomer has the pool's, with an error for
        the few rows.
        """
        known_N1 = np.isfinite(quality_N1)
        centre = score_N1[known_N1].mean(keepdims=True) if known_N1.any() else np.zeros(1)
        variance = np.where(np.isfinite(means.variance), means.variance, 0.25)
        error = np.sqrt(variance / np.maximum(means.num, 1.0))
        slope = self.slope.mean(keepdims=True)
        deviation = float(np.std(score_N1[known_N1])) if known_N1.any() else 0.0
        slope_error = np.minimum(error / max(deviation, 1e-6), slope) + self.slope_error.max(keepdims=True)
        return ScoreScale(
            level=means.quality,
            centre=centre,
            slope=slope,
            level_error=np.maximum(error, _LEAST_ERROR),
            slope_error=slope_error,
            deviation=np.sqrt(variance),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `scale_from` reads it back."""
        return {f"scale.{f.name}": getattr(self, f.name) for f in fields(ScoreScale)}


def scale_from(arrays: Mapping[str, np.ndarray]) -> ScoreScale:
    """Rebuild from `ScoreScale.arrays`."""
    return ScoreScale(*(arrays[f"scale.{f.name}"] for f in fields(ScoreScale)))


def fit_scale(score_NM: Floats, quality_NM: Floats, means: Means, *, is_relative: bool = False) -> ScoreScale:
    """Draw the lines; rows are held-out ones, `means` those of all rows, NaN is unknown.

    Of a score that compares candidates (`is_relative`) the slope is that of the differences within a row: how
    hard a query is says nothing of such a score, and would be noise. Without any row the slope is 0.
    """
    known_NM = np.isfinite(quality_NM)
    num_M = known_NM.sum(axis=0)
    centre_M, x_NM = _centred(score_NM, known_NM)
    _, y_NM = _centred(quality_NM, known_NM)
    u_NM, v_NM = (_within(x_NM, known_NM), _within(y_NM, known_NM)) if is_relative else (x_NM, y_NM)
    square_M, cross_M = np.square(u_NM).sum(axis=0), (u_NM * v_NM).sum(axis=0)
    num, total = max(int(num_M.sum()), 1), float(square_M.sum())
    # A score that is the same everywhere, but for rounding, has no slope.
    pooled = max(float(cross_M.sum()) / total, 0.0) if total > _FLAT * num else 0.0
    weight_M = np.maximum(square_M + _PRIOR * total / num, 1e-12)
    slope_M = np.maximum((cross_M + _PRIOR * total / num * pooled) / weight_M, 0.0)
    slope_M = slope_M if pooled else np.zeros_like(slope_M)
    residual_M = np.square(y_NM - slope_M * x_NM).sum(axis=0)
    noise_M = (residual_M + _PRIOR_NOISE * means.variance) / (num_M + _PRIOR_NOISE)
    # A candidate that no held-out row shows has no centre of its own.
    common = float(centre_M[num_M > 0].mean()) if (num_M > 0).any() else 0.0
    return ScoreScale(
        level=means.quality,
        centre=np.where(num_M > 0, centre_M, common),
        slope=slope_M,
        level_error=np.maximum(np.sqrt(noise_M / np.maximum(means.num, 1.0)), _LEAST_ERROR),
        slope_error=np.sqrt(noise_M / weight_M) if pooled else np.zeros_like(slope_M),
        deviation=np.sqrt(means.variance),
    )


def _centred(value_NM: Floats, known_NM: Bools) -> tuple[Floats, Floats]:
    """Return the mean of each column over known cells, and what differs from it; 0 where unknown."""
    mean_M = np.where(known_NM, value_NM, 0.0).sum(axis=0) / np.maximum(known_NM.sum(axis=0), 1)
    return mean_M, np.where(known_NM, value_NM - mean_M, 0.0)


def _within(value_NM: Floats, known_NM: Bools) -> Floats:
    mean_N1 = value_NM.sum(axis=1, keepdims=True) / np.maximum(known_NM.sum(axis=1, keepdims=True), 1)
    return np.where(known_NM, value_NM - mean_N1, 0.0)
