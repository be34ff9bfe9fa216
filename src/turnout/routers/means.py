"""This module averages outcomes per candidate, and says how far an average may be off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.routers.targets import Targets, probe_of, read_targets


@dataclass(frozen=True, slots=True)
class Means:
    """Averages of M candidates, each of shape (M,); NaN where nothing was observed."""

    quality: Floats
    variance: Floats
    """Variance of one quality, one best and one worst counted in."""
    num: Floats
    """Number of observed qualities."""
    cost_usd: Floats
    latency_s: Floats

    def standard_error(self) -> Floats:
        """Return the standard error of the mean quality; infinity where nothing was observed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(self.variance / self.num)
        return np.where(self.num > 0, error, np.inf)

    def estimate(self, candidates: tuple[Candidate, ...], num_queries: int) -> Estimate:
        """Return the same estimate for every query."""
        shape = (num_queries, len(candidates))
        return make_estimate(
            candidates,
            np.broadcast_to(self.quality, shape).copy(),
            spread_QM=np.broadcast_to(self.standard_error(), shape).copy(),
            cost_usd_QM=np.broadcast_to(self.cost_usd, shape).copy(),
            latency_s_QM=np.broadcast_to(self.latency_s, shape).copy(),
        )

    def take(self, column: Ints) -> Means:
        """Return those of some candidates, in the order given."""
        return Means(*(getattr(self, f.name)[column] for f in fields(Means)))

    def with_added(self, other: Means) -> Means:
        """Return these candidates, then the other's."""
        return Means(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(Means))
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the averages by name; `means_from` reads them back."""
        return {f.name: getattr(self, f.name) for f in fields(Means)}


def means_of(targets: Targets) -> Means:
    """Average each candidate over the queries on which it was observed."""
    num = np.isfinite(targets.quality_QM).sum(axis=0).astype(np.float64)
    quality = column_mean(targets.quality_QM)
    squares = num * column_mean((targets.quality_QM - quality) ** 2)
    return Means(
        quality,
        variance_of(num, quality, squares),
        num,
        column_mean(targets.cost_usd_QM),
        column_mean(targets.latency_s_QM),
    )


def variance_of(num_M: Floats, mean_M: Floats, squares_M: Floats) -> Floats:
    """Return the variance of one quality from the sum of squares around the mean of `num_M` of them.

    One best and one worst outcome are counted more than were seen (Laplace's rule): some right answers in a
    row are no proof of certainty.
    """
    centre_M = (num_M * mean_M + 1.0) / (num_M + 2.0)
    around_M = squares_M + num_M * (mean_M - centre_M) ** 2 + (1.0 - centre_M) ** 2 + centre_M**2
    variance_M: Floats = around_M / (num_M + 2.0)
    return variance_M


def with_candidate(
    means: Means, known: tuple[Candidate, ...], candidate: Candidate, table: OutcomeTable
) -> tuple[Means, tuple[Candidate, ...]]:
    """Return averages and pool with one more candidate, averaged over its rows of a probe table.

    Raises `InputError` for a candidate that is known already, `TableError` where the table has no row of it.
    """
    added = means_of(read_targets(probe_of(table, candidate, known))[1])
    return means.with_added(added), (*known, candidate)


def means_from(arrays: Mapping[str, np.ndarray]) -> Means:
    """Rebuild from `Means.arrays`."""
    return Means(*(arrays[f.name] for f in fields(Means)))


def column_mean(values_QM: Floats) -> Floats:
    """Return the mean of the known values of each column, NaN where there is none; shape (M,)."""
    known_QM = np.isfinite(values_QM)
    num = known_QM.sum(axis=0)
    if not num.any():  # as costs and latencies often are
        return np.full(num.size, np.nan)
    total = np.where(known_QM, values_QM, 0.0).sum(axis=0)
    return np.where(num > 0, total / np.maximum(num, 1), np.nan)
