"""This module checks that the order in which things stand in a list never decides what a router says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnout.checks.compare import ROUNDING, require_same_estimate
from turnout.checks.fixtures import fresh_queries, small_table
from turnout.checks.report import require
from turnout.core.contracts import Router
from turnout.core.outcomes import Ints, OutcomeTable
from turnout.core.rng import make_rng
from turnout.core.rows import MEASURES


def the_order_of_queries_does_not_matter(router: Router) -> None:
    """Query 5 gets the same estimate wherever it stands in the batch."""
    new = router.clone().fit(small_table())
    queries = fresh_queries()
    order = make_rng(0, "checks", "order").permutation(len(queries))
    straight = new.estimate(queries).rows(order)
    shuffled = new.estimate([queries[index] for index in order])
    what = "the order of the queries in a batch changed an estimate"
    require_same_estimate(router, what, straight, shuffled, tolerance=ROUNDING)


def a_batch_equals_one_by_one(router: Router) -> None:
    """Nothing leaks from one query of a batch to another."""
    new = router.clone().fit(small_table())
    batch = new.estimate(fresh_queries())
    for row, query in enumerate(fresh_queries()):
        what = f"query {row} alone differs from the same query in a batch"
        require_same_estimate(router, what, batch.rows([row]), new.estimate([query]), tolerance=ROUNDING)


def an_empty_batch_works(router: Router) -> None:
    """No queries give an estimate of shape (0, M)."""
    estimate = router.clone().fit(small_table()).estimate([])
    shape, expected = estimate.quality_QM.shape, (0, len(small_table().candidates))
    require(shape == expected, router, "the estimate of no queries", allowed=expected, got=shape)


def the_order_of_candidates_does_not_matter(router: Router) -> None:
    """A pool in another order gives the same numbers under the same names."""
    table = small_table()
    order = np.array([2, 0, 3, 1])
    what = "the order of the candidates changed an estimate"
    _require_same_after(router, what, table, reordered(table, candidates=order))


def the_order_of_training_rows_does_not_matter(router: Router) -> None:
    """A table is a set of rows."""
    table = small_table()
    order = make_rng(1, "checks", "order").permutation(table.num_rows)
    what = "the order of the training rows changed an estimate"
    _require_same_after(router, what, table, reordered(table, rows=order))


def the_order_of_training_queries_does_not_matter(router: Router) -> None:
    """Nor does it matter in which order the queries were recorded."""
    table = small_table()
    order = make_rng(2, "checks", "order").permutation(len(table.queries))
    what = "the order of the training queries changed an estimate"
    _require_same_after(router, what, table, reordered(table, queries=order))


def reordered(
    table: OutcomeTable,
    *,
    rows: Ints | None = None,
    queries: Ints | None = None,
    candidates: Ints | None = None,
) -> OutcomeTable:
    """Return the same outcomes with rows, queries and candidates in other orders (new -> old index)."""
    row = np.arange(table.num_rows) if rows is None else rows
    query = np.arange(len(table.queries)) if queries is None else queries
    candidate = np.arange(len(table.candidates)) if candidates is None else candidates
    return OutcomeTable(
        queries=[table.queries[index] for index in query],
        candidates=[table.candidates[index] for index in candidate],
        query_index=np.argsort(query)[table.query_index[row]],
        candidate_index=np.argsort(candidate)[table.candidate_index[row]],
        sample=table.sample[row],
        splits=[table.splits[index] for index in query],
        references=[table.references[index] for index in query],
        **{name: getattr(table, name)[row] for name in MEASURES},
    )


def _require_same_after(router: Router, what: str, first: OutcomeTable, second: OutcomeTable) -> None:
    before, after = (router.clone().fit(table).estimate(fresh_queries()) for table in (first, second))
    require_same_estimate(router, what, before, after, tolerance=ROUNDING)


CHECKS: tuple[Callable[[Router], None], ...] = (
    the_order_of_queries_does_not_matter,
    a_batch_equals_one_by_one,
    an_empty_batch_works,
    the_order_of_candidates_does_not_matter,
    the_order_of_training_rows_does_not_matter,
    the_order_of_training_queries_does_not_matter,
)
"""The promises about order."""
