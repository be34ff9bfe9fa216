"""This module predicts the same quality for every candidate: what is known without looking at quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.routers.means import Means, means_from, means_of, with_candidate
from turnout.routers.targets import pack_candidates, read_targets, unpack_candidates


@final
class UniformRouter(Router):
    """Predict for every candidate the mean quality of the pool, and its own mean cost and latency.

    The control that cannot tell candidates apart: with it, a policy that maximises quality has only
    cost left to go by.

    Spread is the deviation of the candidates' means around the pool's, since that is what is not known here,
    and no less than the standard error of the candidate's own. A candidate without one observation keeps an
    unknown quality.

    Cost
    ----
    O(M) per query.
    """

    def __init__(self) -> None:
        self.candidates_: tuple[Candidate, ...] = ()
        self.means_: Means | None = None
        self.pool_: tuple[float, float] = (np.nan, np.inf)

    @property
    def is_fitted(self) -> bool:
        """Whether averages were learned."""
        return self.means_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Average the pool; returns self."""
        self.candidates_ = table.candidates
        self.means_ = means_of(read_targets(table)[1])
        known = np.sort(self.means_.quality[self.means_.num > 0])
        self.pool_ = (float(known.mean()), float(known.std())) if known.size else (np.nan, np.nan)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the pool's mean quality for everyone."""
        means = self._means("estimate")
        level, spread = self.pool_
        known_M = means.num > 0
        same = replace(
            means,
            quality=np.where(known_M, level, np.nan),
            # As the variance of one outcome: `Means` divides by the number of observations.
            variance=np.where(known_M, np.maximum(spread**2 * means.num, means.variance), np.nan),
        )
        return same.estimate(self.candidates_, len(queries))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Add one more candidate at the pool's quality, with its own cost and latency; returns self."""
        means = self._means("add_candidate")
        self.means_, self.candidates_ = with_candidate(means, self.candidates_, candidate, table)
        return self

    def state(self) -> State:
        """Return the averages."""
        arrays = {**self._means("state").arrays(), "pool": np.array(self.pool_)}
        return State(arrays=arrays, values={"candidates": pack_candidates(self.candidates_)})

    def restore(self, state: State) -> None:
        """Take over averages."""
        self.means_ = means_from(state.arrays)
        level, spread = state.arrays["pool"].tolist()
        self.pool_ = level, spread
        self.candidates_ = unpack_candidates(state.values["candidates"])

    def _means(self, move: str) -> Means:
        self.require_fitted(move)
        assert self.means_ is not None
        return self.means_
