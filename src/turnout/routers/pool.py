"""This module keeps what is known of a pool whatever a query says: averages, and spending by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.routers.charges import Charges, charges_from
from turnout.routers.length_trend import fit_trend
from turnout.routers.means import Means, column_mean, means_from, means_of
from turnout.routers.packing import below, under
from turnout.routers.targets import Targets, pack_candidates, probe_of, read_targets, unpack_candidates


@dataclass(frozen=True, slots=True)
class Pool:
    """M candidates with their averages.

    Unlike `Ground` it keeps the order of the table and a column for the stranger, since averages do not
    depend on either; the ratio of its charges is the mean of each cost over its line.
    """

    candidates: tuple[Candidate, ...]
    means: Means
    charges: Charges

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
        known_M = self.known_M
        return self.charges.estimate(
            self.candidates,
            queries,
            np.where(known_M, quality_QM, np.nan),
            np.where(known_M, spread_QM, np.inf),
            ratio_QM,
        )

    def take(self, column: Ints) -> Pool:
        """Return some candidates, in the order given."""
        chosen = tuple(self.candidates[at] for at in column.tolist())
        return Pool(chosen, self.means.take(column), self.charges.take(column))

    def with_added(self, other: Pool) -> Pool:
        """Return these candidates, then the other's."""
        return Pool(
            (*self.candidates, *other.candidates),
            self.means.with_added(other.means),
            self.charges.with_added(other.charges),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the numbers by name; `pool_from` reads them back."""
        return {**under("pool.", self.means.arrays()), **self.charges.arrays()}

    def values(self) -> dict[str, object]:
        """Return the candidates as JSON values."""
        return {"candidates": pack_candidates(self.candidates)}


def pool_from(arrays: Mapping[str, np.ndarray], values: Mapping[str, object]) -> Pool:
    """Rebuild from `Pool.arrays` and `Pool.values`."""
    means = means_from(below("pool.", arrays))
    return Pool(unpack_candidates(values["candidates"]), means, charges_from(arrays))


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
    trend, means = fit_trend(queries, targets.cost_usd_QM), means_of(targets)
    ratio = column_mean(targets.cost_usd_QM / trend.predict(queries))
    return Pool(candidates, means, Charges(trend, ratio, means.latency_s))
