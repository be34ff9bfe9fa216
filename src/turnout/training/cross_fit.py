"""This module lets routers predict every query of a table without having learned from it, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.contracts import Router
from turnout.core.errors import TableError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable, split_groups
from turnout.evaluation import near_duplicates
from turnout.routers import BestSingleRouter
from turnout.routers.members import blend, held_of, plain_means
from turnout.routers.stacking import Evidence, Weights

_ARRAYS = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM", "allowed_QM")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """What routers say about queries that they never saw."""

    rows_Q: Bools
    """Which queries of the table these are."""
    base: Estimate
    """The candidates' means on the rest."""
    luck_M: Floats
    """What was taken from them for luck."""
    estimates: Mapping[str, Estimate]
    """Of each router."""
    evidence: Evidence
    """How they did, in the order of `estimates`."""

    def weigh(self, names: Sequence[str]) -> Evidence:
        """Return what the fold says about some routers."""
        order = list(self.estimates)
        return self.evidence.take([order.index(name) for name in names])

    def blend(self, names: Sequence[str], weights: Weights) -> Estimate:
        """Return the blend of some routers."""
        pool_M: Bools = np.asarray(np.isfinite(self.base.quality_QM).all(axis=0))
        return blend([self.estimates[name] for name in names], self.base, weights, pool_M, self.luck_M)


def cut(table: OutcomeTable, num_folds: int, *, seed: int) -> Ints:
    """Return the fold of each query, shape (Q,); same and near-same texts share one.

    Raises `TableError` for a table with fewer groups of texts than folds.
    """
    groups = near_duplicates([query.content for query in table.queries], seed=seed).tolist()
    if len(set(groups)) < num_folds:
        raise TableError(
            sentence(
                f"train: the table would leave a fold of {num_folds} without a query",
                got=f"{len(set(groups))} groups of queries",
                do="give more queries that differ: same and near-same texts count as one group, unless what "
                "differs are images (docs/features.md#columns)",
            )
        )
    shares = {str(fold): 1.0 / num_folds for fold in range(num_folds)}
    return np.array([int(fold) for fold in split_groups(groups, shares, seed=seed)], np.int64)


def predict_fold(routers: Mapping[str, Router], table: OutcomeTable, rows_Q: Bools) -> Fold:
    """Fit each router without some queries of the table, and let it predict them."""
    rest, held = table.where(~rows_Q), table.where(rows_Q)
    estimates = {name: router.clone().fit(rest).estimate(held.queries) for name, router in routers.items()}
    means = BestSingleRouter().fit(rest)
    base = means.estimate(held.queries)
    evidence = held_of(list(estimates.values()), plain_means(rest), held).evidence()
    return Fold(rows_Q=rows_Q, base=base, luck_M=means.luck_, estimates=estimates, evidence=evidence)


def in_order(folds: Sequence[Fold], estimates: Sequence[Estimate]) -> Estimate:
    """Return one estimate of all queries from those of the folds."""
    shape = (folds[0].rows_Q.size, len(estimates[0].candidates))
    arrays = {}
    for name in _ARRAYS:
        whole = np.empty(shape, getattr(estimates[0], name).dtype)
        for fold, estimate in zip(folds, estimates, strict=True):
            whole[fold.rows_Q] = getattr(estimate, name)
        arrays[name] = whole
    return Estimate(candidates=estimates[0].candidates, **arrays)
