"""This module keeps what is known of a pool whatever a query says: averages, and spending by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Bools, Floats, OutcomeTable
from turnout.core.query import Query
from turnout.routers.length_trend import LengthTrend, fit_trend, trend_from
from turnout.routers.means import Means, column_mean, means_from, means_of
from turnout.routers.targets import Targets, pack_candidates, probe_of, read_targets, unpack_candidates


@dataclass(frozen=True, slots=True)
class Pool:
    """M candidates with their averages.

    Expected cost is the candidate's line in the length of the prompt (`length_trend`) times the mean ratio
    of its costs to that line; expected latency is its mean.
    """

    candidates: tuple[Candidate, ...]
    means: Means
    trend: LengthTrend
    ratio_M: Floats
    """Mean ratio of a cost to its line, NaN where no cost is known."""

    @property
    def known_M(self) -> Bools:
        """Whether a candidate has one observed quality, shape (M,)."""
        is_known_M: Bools = self.means.num > 0
        return is_known_M

    def estimate(
        self,
        queries: Sequence[Query],
        quality_QM: Floats,
        spread_QM: Floats,
        *,
        ratio_QM: Floats | None = None,
    ) -> Estimate:
        """Add cost and latency to predicted qualities; who was never observed is unknown (NaN).

        `ratio_QM` replaces the mean ratios where a router knows better.
        """
        shape = (len(queries), len(self.candidates))
        known_M = self.known_M
        ratio = self.ratio_M if ratio_QM is None else ratio_QM
        return make_estimate(
            self.candidates,
            np.where(known_M, quality_QM, np.nan),
            spread_QM=np.where(known_M, spread_QM, np.inf),
            cost_usd_QM=self.trend.predict(queries) * ratio,
            latency_s_QM=np.broadcast_to(self.means.latency_s, shape).copy(),
        )

    def with_added(self, other: Pool) -> Pool:
        """Return these candidates, then the other's."""
        return Pool(
            (*self.candidates, *other.candidates),
            self.means.with_added(other.means),
            self.trend.with_added(other.trend),
            np.concatenate([self.ratio_M, other.ratio_M]),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the numbers by name; `pool_from` reads them back."""
        means = {f"pool.{name}": array for name, array in self.means.arrays().items()}
        return {**means, **self.trend.arrays(), "pool.ratio": self.ratio_M}

    def values(self) -> dict[str, object]:
        """Return the candidates as JSON values."""
        return {"candidates": pack_candidates(self.candidates)}


def pool_from(arrays: Mapping[str, np.ndarray], values: Mapping[str, object]) -> Pool:
    """Rebuild from `Pool.arrays` and `Pool.values`."""
    means = {n.removeprefix("pool."): a for n, a in arrays.items() if n.startswith("pool.")}
    ratio_M = means.pop("ratio")
    return Pool(unpack_candidates(values["candidates"]), means_from(means), trend_from(arrays), ratio_M)


def read_pool(
    table: OutcomeTable, candidates: tuple[Candidate, ...] | None = None
) -> tuple[list[Query], Targets, Pool]:
    """Return queries and outcomes in a fixed order (`read_targets`), and the pool they describe."""
    queries, targets = read_targets(table)
    return queries, targets, pool_of(queries, targets, candidates or table.candidates)


def read_newcomer(table: OutcomeTable, candidate: Candidate, pool: Pool) -> tuple[list[Query], Targets, Pool]:
    """Return the same for one candidate that joins `pool`, or raise as `probe_of` does."""
    return read_pool(probe_of(table, candidate, pool.candidates), (candidate,))


def pool_of(queries: Sequence[Query], targets: Targets, candidates: tuple[Candidate, ...]) -> Pool:
    """Average the outcomes of a pool."""
    trend = fit_trend(queries, targets.cost_usd_QM)
    ratio_M = column_mean(targets.cost_usd_QM / trend.predict(queries))
    return Pool(candidates, means_of(targets), trend, ratio_M)
