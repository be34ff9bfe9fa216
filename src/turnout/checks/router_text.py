"""This module checks that no text, and no lack of one, stops a router."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from turnout.checks.fixtures import (
    dense_table,
    fresh_queries,
    hard_queries,
    known_values,
    long_query,
    small_queries,
    small_table,
)
from turnout.checks.report import require
from turnout.core.contracts import Router
from turnout.core.query import Query


def hard_texts_get_an_estimate(router: Router) -> None:
    """No text, an empty one, half a surrogate pair, no letter at all: each is estimated."""
    _require_answers(router, router.clone().fit(small_table()), hard_queries())


def a_table_without_texts_works(router: Router) -> None:
    """Where no text was recorded, a router does without."""
    queries = [replace(query, text=None) for query in small_queries()]
    new = router.clone().fit(dense_table(queries, *known_values(queries)))
    _require_answers(router, new, [*fresh_queries(), *hard_queries()])


def a_table_of_hard_texts_works(router: Router) -> None:
    """The same texts may stand in the training table."""
    queries = hard_queries()
    new = router.clone().fit(dense_table(queries, *known_values(queries)))
    _require_answers(router, new, [*fresh_queries(), *queries])


def a_table_of_one_query_works(router: Router) -> None:
    """One query is little, but it is a table."""
    queries = small_queries(1)
    new = router.clone().fit(dense_table(queries, *known_values(queries)))
    _require_answers(router, new, fresh_queries())


def a_table_of_one_text_works(router: Router) -> None:
    """Where every query has the same text, there is nothing to tell them apart by."""
    queries = [replace(query, text="the same words again") for query in small_queries()]
    new = router.clone().fit(dense_table(queries, *known_values(queries)))
    _require_answers(router, new, [*fresh_queries(), *queries[:2]])


def a_constant_quality_works(router: Router) -> None:
    """Where every candidate is always right, there is nothing to learn, and nothing to divide by."""
    queries = small_queries()
    quality_QM, cost_usd_QM = known_values(queries)
    new = router.clone().fit(dense_table(queries, np.ones_like(quality_QM), cost_usd_QM))
    quality = new.estimate(fresh_queries()).quality_QM
    is_right = (np.isnan(quality) | (quality > 0.9)).all()
    require(is_right, router, "quality where every recorded one is 1", allowed="above 0.9", got=quality.min())


def a_text_of_a_megabyte_works(router: Router) -> None:
    """A very long prompt is estimated like any other."""
    _require_answers(router, router.clone().fit(small_table()), [long_query()])


def _require_answers(router: Router, fitted: Router, queries: Sequence[Query]) -> None:
    estimate = fitted.estimate(queries)
    shape = (len(queries), len(fitted.estimate(queries[:1]).names))
    require(estimate.quality_QM.shape == shape, router, "shape", allowed=shape, got=estimate.quality_QM.shape)
    for name in ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM"):
        array_QM = getattr(estimate, name)
        known = array_QM[~np.isnan(array_QM)]
        is_right = np.isfinite(known).all() and (known >= 0).all()
        require(is_right, router, f"{name} on hard input", allowed="finite and not negative", got=known)
    for row, query in enumerate(queries):
        is_known = not np.isnan(estimate.quality_QM[row]).all()
        text = None if query.text is None else query.text[:20]
        require(is_known, router, f"it knows no candidate's quality for the text {text!r}")


CHECKS: tuple[Callable[[Router], None], ...] = (
    hard_texts_get_an_estimate,
    a_table_without_texts_works,
    a_table_of_hard_texts_works,
    a_table_of_one_query_works,
    a_table_of_one_text_works,
    a_constant_quality_works,
)
"""The promises about texts."""
