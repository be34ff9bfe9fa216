"""This module predicts each candidate's average, whatever the query: the baseline every router must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Router, State
from turnout.core.estimate import Estimate
from turnout.core.levels import adjusted_means, drawn_means
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.routers.evidence import ANYTHING, lack_square
from turnout.routers.kmeans import one_hot
from turnout.routers.means import Means, means_from, means_of, with_candidate
from turnout.routers.targets import pack_candidates, read_targets, unpack_candidates


@final
class BestSingleRouter(Router):
    """Predict the training mean of quality, cost and latency per candidate.

    At price 0 the choice from it is the best single model. Spread is the standard error of the mean over all
    queries, and what was taken from it for luck: a candidate that was kept from a task may do anything there.

    Source
    ------
    The constant baseline of C. Hu et al., "RouterBench", 2024, section 4. F. Yates, 1933, and C. N. Morris,
    1983, for the means of a table with holes (`core.levels`).

    Differs
    -------
    On a table with holes the quality is what the mean would be over every query, so that nobody leads for
    having met easier ones, and of candidates that were observed less it is drawn to the common mean, so that
    nobody leads for some lucky answers (`core.levels`); on a dense one it is the mean. Costs are plain means.

    Cost
    ----
    O(M) per query.
    """

    def __init__(self) -> None:
        self.candidates_: tuple[Candidate, ...] = ()
        self.means_: Means | None = None
        self.luck_: Floats = np.zeros(0)
        """How far each candidate's mean is believed to be off because few outcomes were seen."""

    @property
    def is_fitted(self) -> bool:
        """Whether averages were learned."""
        return self.means_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Average every candidate of the table; returns self."""
        queries, targets = read_targets(table)
        adjusted_M = adjusted_means(targets.quality_QM, [query.task for query in queries])
        self.candidates_ = table.candidates
        means = means_of(targets)
        variance_M = means.variance + means.num * _of_tasks_not_met(queries, targets.quality_QM)
        self.means_ = replace(means, quality=adjusted_M, variance=variance_M)
        self.luck_ = _luck(means, adjusted_M, len(queries))
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages, the same for every query."""
        means = self._means("estimate")
        if self.luck_.any():
            wide_M = means.variance + means.num * self.luck_**2
            means = replace(means, quality=means.quality - self.luck_, variance=wide_M)
        return means.estimate(self.candidates_, len(queries))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its rows; returns self."""
        means = self._means("add_candidate")
        self.means_, self.candidates_ = with_candidate(means, self.candidates_, candidate, table)
        self.luck_ = np.append(self.luck_, 0.0)
        return self

    def state(self) -> State:
        """Return the averages."""
        return State(
            arrays={**self._means("state").arrays(), "luck": self.luck_},
            values={"candidates": pack_candidates(self.candidates_)},
        )

    def restore(self, state: State) -> None:
        """Take over averages."""
        self.means_ = means_from(state.arrays)
        # Older artifacts hold none.
        self.luck_ = state.arrays.get("luck", np.zeros(self.means_.num.size))
        self.candidates_ = unpack_candidates(state.values["candidates"])

    def _means(self, move: str) -> Means:
        self.require_fitted(move)
        assert self.means_ is not None
        return self.means_


def _luck(means: Means, adjusted_M: Floats, num_queries: int) -> Floats:
    """Return how far each mean is believed to be off by luck, shape (M,); 0 on a dense table."""
    seen_M = means.num > 0
    if not seen_M.any() or means.num[seen_M].min() == num_queries:
        return np.zeros(seen_M.size)
    variance = float(np.average(means.variance, weights=means.num))
    return np.nan_to_num(adjusted_M - drawn_means(adjusted_M, means.num, variance))


def _of_tasks_not_met(queries: Sequence[Query], quality_QM: Floats) -> Floats:
    """Return the variance that tasks on which a candidate was hardly run add to its mean, shape (M,)."""
    names = sorted({query.task for query in queries if query.task is not None})
    order = {name: column for column, name in enumerate(names)}
    rows = [row for row, query in enumerate(queries) if query.task in order]
    if not rows:
        return np.zeros(quality_QM.shape[1])
    task_N = np.array([order[queries[row].task or ""] for row in rows])
    share_NT = one_hot(task_N, len(names)).astype(np.float64)
    share_T = share_NT.mean(axis=0)
    kept_M: Floats = share_T @ lack_square(share_NT.T @ np.isfinite(quality_QM[rows]), share_T)
    return ANYTHING * kept_M**2
