"""This module states what a candidate costs by the length of the prompt alone: a line per candidate.

A bill is a price per input token plus a price per output token, so its first part is a line in the length of
the prompt, which similarity of content does not see. Routers learn the ratio of a cost to this line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.core.query import Query
from turnout.routers.means import column_mean

_CHARS_PER_TOKEN = 4.0
_LEAST_SHARE = 0.02
"""A line is at least this share of the mean cost, so that a ratio to it stays finite."""


@dataclass(frozen=True, slots=True)
class LengthTrend:
    """Expected cost `max(intercept + slope * length, least)` of M candidates, each of shape (M,)."""

    intercept_usd: Floats
    slope_usd: Floats
    """USD per token of the prompt."""
    least_usd: Floats

    def predict(self, queries: Sequence[Query]) -> Floats:
        """Return the line's cost, shape (Q, M); 1 for a free candidate, NaN where nothing is known."""
        line_QM = self.intercept_usd + lengths_of(queries)[:, None] * self.slope_usd
        np.maximum(line_QM, self.least_usd, out=line_QM)
        if np.count_nonzero(line_QM) < line_QM.size:
            line_QM[line_QM == 0.0] = 1.0
        return line_QM

    def with_added(self, other: LengthTrend) -> LengthTrend:
        """Return these candidates, then the other's."""
        return LengthTrend(*(np.concatenate(pair) for pair in zip(self._all(), other._all(), strict=True)))

    def take(self, column: Ints) -> LengthTrend:
        """Return the lines of some candidates."""
        return LengthTrend(*(line[column] for line in self._all()))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the lines; `trend_from` reads them back."""
        return {"cost_line": np.stack(self._all())}

    def _all(self) -> tuple[Floats, Floats, Floats]:
        return self.intercept_usd, self.slope_usd, self.least_usd


def trend_from(arrays: Mapping[str, np.ndarray]) -> LengthTrend:
    """Rebuild from `LengthTrend.arrays`."""
    return LengthTrend(*arrays["cost_line"])


def lengths_of(queries: Sequence[Query]) -> Floats:
    """Return the tokens of each prompt, shape (Q,): as counted, or a quarter of its characters."""
    return np.array(
        [
            len(query.words) / _CHARS_PER_TOKEN if query.input_tokens is None else float(query.input_tokens)
            for query in queries
        ],
        np.float64,
    )


def fit_trend(queries: Sequence[Query], cost_usd_QM: Floats) -> LengthTrend:
    """Fit the least-squares line with intercept and slope of at least 0 to each candidate's known costs.

    Where the free line has a negative part, the best line without it: the mean, or one through zero.
    """
    length_QM = np.where(np.isfinite(cost_usd_QM), lengths_of(queries)[:, None], np.nan)
    mean_M, mean_length_M = column_mean(cost_usd_QM), column_mean(length_QM)
    away_QM = length_QM - mean_length_M
    variance_M = column_mean(away_QM**2)
    square_M = column_mean(length_QM**2)
    slope_M = _ratio(column_mean(away_QM * cost_usd_QM), variance_M)
    intercept_M = mean_M - slope_M * mean_length_M
    through_zero_M = _ratio(column_mean(length_QM * cost_usd_QM), square_M)
    slope_M, intercept_M = (
        np.where(slope_M <= 0, 0.0, np.where(intercept_M < 0, through_zero_M, slope_M)),
        np.where(slope_M <= 0, mean_M, np.maximum(intercept_M, 0.0)),
    )
    return LengthTrend(intercept_M, slope_M, _LEAST_SHARE * mean_M)


def _ratio(above_M: Floats, below_M: Floats) -> Floats:
    usable_M = below_M > 0
    return np.where(
        usable_M, above_M / np.where(usable_M, below_M, 1.0), np.where(np.isnan(below_M), np.nan, 0.0)
    )
