"""This module lets methods be compared on a table with holes: what stands in for cells nobody observed.

A table whose dense part holds most of its outcomes is judged there, as it was recorded. Of another, those
candidates and held-out queries are kept of which each cell had a chance to be observed, and a doubly robust
value stands in for every cell (`turnout.training.missing`): its mean is right where the chance of being
observed is, or where the estimate is. The estimate is ridge regression on the training part, the same for
all that are compared. The oracle, which chooses by the outcomes themselves, sees what was observed and
expects the estimate elsewhere, so that it is an estimate too: luck it can't see lowers it, error raises it.
"""

from __future__ import annotations

import numpy as np

from turnout.core.contracts import Embedder
from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import Bools, Floats, OutcomeTable
from turnout.evaluation import Cells, dense_part
from turnout.routers import RidgeRouter
from turnout.training.missing import MIN_CHANCE, cells_of, chances, features_of

MIN_KEPT = 0.8
"""Share of the outcomes that a dense part must hold to be judged alone."""
MIN_SUPPORT = 0.95
"""Share of the held-out queries on which a candidate must have had a chance to be observed."""

_THREE = 3.0


def comparable(table: OutcomeTable) -> OutcomeTable:
    """Return the dense part of a table where it holds most of the outcomes, else the whole table."""
    try:
        dense = dense_part(table)
    except TableError:
        return table
    return dense if dense.num_rows >= MIN_KEPT * table.num_rows else table


def supported(
    train: OutcomeTable, test: OutcomeTable, embedder: Embedder
) -> tuple[OutcomeTable, OutcomeTable]:
    """Return both parts without the candidates, and the held-out part without the queries, nothing tells of.

    Only where outcomes are missing is looked at, never what they are. Raises `TableError` where nothing is
    left to compare.
    """
    for _ in range(len(test.candidates)):
        if test.observed_QM.all():
            return train, test
        can_QM = (_chances(test, embedder, test.observed_QM) >= MIN_CHANCE) & ~_never(train, test)
        names = _shared(train, test, can_QM)
        if len(names) < len(test.names):
            # Without the others' outcomes a query may have none left, and the chances are learned anew.
            train, test = train.select(candidates=names), test.select(candidates=names)
            continue
        rows_Q: Bools = np.asarray(can_QM.all(axis=1))
        return train, test if rows_Q.all() else test.where(rows_Q)
    raise _nothing()


def _never(train: OutcomeTable, test: OutcomeTable) -> Bools:
    """Return the cells of tasks that a candidate never ran on, shape (Q, M).

    A regression smooths over such a gap. By the rule of three (none of n seen: a chance of at most 3/n, with
    95 % confidence) a task must have so many queries that the bound lies below `MIN_CHANCE`.
    """
    never_QM = np.zeros(test.observed_QM.shape, np.bool_)
    order = [train.names.index(name) for name in test.names]
    seen_NM = np.concatenate([train.observed_QM[:, order], test.observed_QM])
    tasks_Q, tasks_N = np.array(test.tasks, object), np.array([*train.tasks, *test.tasks], object)
    for task in set(test.tasks):
        seen_KM = seen_NM[tasks_N == task]
        if len(seen_KM) * MIN_CHANCE > _THREE:
            never_QM[tasks_Q == task] = ~seen_KM.any(axis=0)
    return never_QM


def _shared(train: OutcomeTable, test: OutcomeTable, can_QM: Bools) -> list[str]:
    known = {train.names[column] for column in np.flatnonzero(train.observed_QM.any(axis=0))}
    share_M = can_QM.mean(axis=0)
    names = [name for name, share in zip(test.names, share_M, strict=True) if share >= MIN_SUPPORT]
    kept = [name for name in names if name in known]
    if not kept or not can_QM[:, [test.names.index(name) for name in kept]].all(axis=1).any():
        raise _nothing()
    return kept


def _nothing() -> TableError:
    return TableError(
        sentence(
            "bench: no candidate can be judged on the held-out queries",
            allowed=f"candidates that had a chance of at least {MIN_CHANCE:.0%} on {MIN_SUPPORT:.0%} of them",
            got="each is missing on some kind of query throughout",
            do="select candidates that ran on the same tasks",
        )
    )


def fill(train: OutcomeTable, test: OutcomeTable, embedder: Embedder) -> Cells | None:
    """Return what the cells of the held-out part count as; None where all were observed."""
    if test.observed_QM.all():
        return None
    estimate = RidgeRouter(embedder=embedder).fit(train).estimate(test.queries).reorder(test.names)
    # Learned without the queries that were left out, a chance may lie below the bound again.
    return cells_of(test, estimate, np.asarray(embedder.embed(test.queries)), is_supported=True)


def _chances(test: OutcomeTable, embedder: Embedder, seen_QM: Bools) -> Floats:
    return chances(seen_QM, features_of(test, np.asarray(embedder.embed(test.queries))))
