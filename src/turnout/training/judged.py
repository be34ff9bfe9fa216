"""This module sets what a router said about queries it never saw beside what came true, missing cells too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.contracts import Policy
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable
from turnout.evaluation.baselines import best_single
from turnout.policies import Pairs, measure_pairs, measure_singles
from turnout.training.missing import stand_in
from turnout.training.replay import realised_estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Queries on which a router is judged, and what it said about them without having seen them."""

    table: OutcomeTable
    estimate: Estimate
    quality_QM: Floats
    """Of every cell, as recorded, or what stands in for it (`missing`, or `log`)."""
    cost_usd_QM: Floats
    rival_QM: Floats
    """The same qualities, but for the column of the best single model: see `judge`."""
    reach_QM: Floats
    """How far one outcome can move a quality: 1 where it is recorded, 1 / chance where one stands in."""
    is_log: bool = False
    """Whether the table is a log, of which a chance chose who answered (`turnout.training.log`)."""

    def options(self, policy: Policy, prices: Floats, *, seed: int) -> Pairs:
        """Return the router at every price against every single model."""
        outcomes = self.quality_QM, self.cost_usd_QM, self.reach_QM
        quality_PQ, usd_PQ, reach_PQ = realised_estimate(
            self.estimate, policy, self.table, prices, outcomes=outcomes, seed=seed
        )
        reach = reach_PQ, self.reach_QM.T
        return measure_pairs(quality_PQ, usd_PQ, self.rival_QM.T, self.cost_usd_QM.T, reach=reach)

    def singles(self, best: int) -> Pairs:
        """Return every single model against the best one and against itself."""
        return measure_singles(
            self.quality_QM.T, self.cost_usd_QM.T, best, self.rival_QM.T, reach_MQ=self.reach_QM.T
        )

    def rows(self, keep_Q: Bools) -> Judged:
        """Return the part of the queries whose mask entry is true."""
        return Judged(
            table=self.table.where(keep_Q),
            estimate=self.estimate.rows(keep_Q),
            quality_QM=self.quality_QM[keep_Q],
            cost_usd_QM=self.cost_usd_QM[keep_Q],
            rival_QM=self.rival_QM[keep_Q],
            reach_QM=self.reach_QM[keep_Q],
            is_log=self.is_log,
        )


def judge(
    table: OutcomeTable,
    estimate: Estimate,
    single_Q: Ints,
    best: int,
    x_QF: np.ndarray | None = None,
    allowed_QM: Bools | None = None,
) -> Judged:
    """Return what was estimated of queries next to their outcomes; `x_QF` are the vectors of their texts.

    `best` is the best single model of all the data, these queries among them, so that its mean on them is
    too good: among many candidates the luckiest leads. What a router must beat is the best single model
    chosen as the router was learned, without the query: `single_Q` names it, and its quality stands in the
    column of `best`.

    `allowed_QM` says who may be chosen where (`support`), None for everybody. Of a cell where one may not,
    and that was not observed, nothing is known: it counts as the worst quality of a choice and as the best
    one of what a choice is compared with, so that every query counts and none in favour of what nobody saw.
    """
    quality_QM, cost_usd_QM, reach_QM = stand_in(table, estimate, x_QF)
    rival_QM = quality_QM.copy()
    if allowed_QM is not None:
        narrow_M = ~allowed_QM.all(axis=0)
        dark_QM = narrow_M & ~table.observed_QM & (~allowed_QM | np.isnan(quality_QM))
        quality_QM, rival_QM = np.where(dark_QM, 0.0, quality_QM), np.where(dark_QM, 1.0, rival_QM)
        reach_QM = np.where(dark_QM, 1.0, reach_QM)
        cost_usd_QM = np.where(dark_QM, estimate.cost_usd_QM, cost_usd_QM)
        estimate = estimate.restrict(allowed_QM)
    rival_QM[:, best] = rival_QM[np.arange(len(single_Q)), single_Q]
    return Judged(
        table=table,
        estimate=estimate,
        quality_QM=quality_QM,
        cost_usd_QM=cost_usd_QM,
        rival_QM=rival_QM,
        reach_QM=reach_QM,
    )


def singles_of_folds(table: OutcomeTable, among: OutcomeTable, fold_Q: Ints) -> Ints:
    """Return the best single model of the other folds for every query, shape (Q,).

    `among` is the table of the candidates that may be one: who was kept from queries is not among them
    (`support.wide`), so that few outcomes of a candidate are a fair sample, and drawn means say what they are
    worth.
    """
    single_Q = np.zeros(fold_Q.size, np.int64)
    for fold in np.unique(fold_Q):
        single = best_single(among.where(fold_Q != fold), min_coverage=0.0)
        single_Q[fold_Q == fold] = table.names.index(single)
    return single_Q
