"""This module states what candidates cost and how long they take, by the length of the prompt alone.

For routers whose published form predicts quality only: the line of `length_trend`, times the one ratio
that makes the mean prediction equal the mean cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, Ints
from turnout.core.query import Query
from turnout.routers.length_trend import LengthTrend, fit_trend, trend_from
from turnout.routers.means import column_mean
from turnout.routers.targets import Targets


@dataclass(frozen=True, slots=True)
class Charges:
    """Cost and latency of M candidates; NaN where nothing was recorded."""

    trend: LengthTrend
    ratio: Floats
    """Mean recorded cost over the line's, shape (M,)."""
    latency_s: Floats
    """Mean recorded latency, shape (M,)."""

    def lines(self, queries: Sequence[Query]) -> Floats:
        """Return the cost of the line, shape (Q, M), that a ratio multiplies."""
        return self.trend.predict(queries)

    def estimate(
        self,
        candidates: tuple[Candidate, ...],
        queries: Sequence[Query],
        quality_QM: Floats,
        spread_QM: Floats,
        ratio_QM: Floats | None = None,
    ) -> Estimate:
        """Add cost and latency to predicted qualities; a known ratio of `ratio_QM` replaces the mean one."""
        shape = (len(queries), len(candidates))
        ratio = self.ratio
        if ratio_QM is not None:
            ratio = np.where(np.isnan(ratio_QM), self.ratio, ratio_QM)
        return make_estimate(
            candidates,
            quality_QM,
            spread_QM=spread_QM,
            cost_usd_QM=self.lines(queries) * ratio,
            latency_s_QM=np.broadcast_to(self.latency_s, shape),
        )

    def take(self, column: Ints) -> Charges:
        """Return those of some candidates, in the order given."""
        return Charges(self.trend.take(column), self.ratio[column], self.latency_s[column])

    def with_added(self, other: Charges) -> Charges:
        """Return these candidates, then the other's."""
        return Charges(
            self.trend.with_added(other.trend),
            np.concatenate([self.ratio, other.ratio]),
            np.concatenate([self.latency_s, other.latency_s]),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `charges_from` reads it back."""
        return {**self.trend.arrays(), "cost_ratio": self.ratio, "latency_s": self.latency_s}


def charges_from(arrays: Mapping[str, np.ndarray]) -> Charges:
    """Rebuild from `Charges.arrays`."""
    return Charges(trend_from(arrays), arrays["cost_ratio"], arrays["latency_s"])


def fit_charges(queries: Sequence[Query], targets: Targets) -> tuple[Charges, Targets]:
    """Return the charges, and the same outcomes with each cost as a multiple of its line."""
    trend = fit_trend(queries, targets.cost_usd_QM)
    line_QM = trend.predict(queries)
    known_line_QM = np.where(np.isfinite(targets.cost_usd_QM), line_QM, np.nan)
    # Of the means and not of the cells, so that expected spending is unbiased.
    ratio = column_mean(targets.cost_usd_QM) / column_mean(known_line_QM)
    return Charges(trend, ratio, column_mean(targets.latency_s_QM)), targets.over(line_QM)
