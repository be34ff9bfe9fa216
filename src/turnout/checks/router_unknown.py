"""This module checks what a router says of what it does not know: unknown is not 0, and never free."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnout.checks.fixtures import (
    CANDIDATES,
    dense_table,
    fresh_queries,
    known_values,
    small_queries,
    small_table,
)
from turnout.checks.report import require
from turnout.core.candidate import Candidate
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.rng import make_rng

_ELK, _YAK = 3, 2


def estimates_lie_in_their_ranges(router: Router) -> None:
    """Quality in [0, 1]; spread, cost and latency finite and not negative; each may be unknown (NaN)."""
    estimate = router.clone().fit(small_table()).estimate(fresh_queries())
    bounds = {"quality_QM": 1.0, "spread_QM": np.inf, "cost_usd_QM": np.inf, "latency_s_QM": np.inf}
    for name, high in bounds.items():
        known = getattr(estimate, name)
        known = known[~np.isnan(known)]
        is_right = (known >= 0).all() and (known <= high).all() and np.isfinite(known).all()
        require(is_right, router, f"{name} leaves its range", allowed=f"[0, {high:g}], finite", got=known)


def estimates_have_the_pools_shape(router: Router) -> None:
    """One row per query, one column per candidate of the table, in its order, and everyone allowed."""
    table, queries = small_table(), fresh_queries()
    estimate = router.clone().fit(table).estimate(queries)
    shape = (len(queries), len(table.candidates))
    require(estimate.quality_QM.shape == shape, router, "shape", allowed=shape, got=estimate.quality_QM.shape)
    require(
        estimate.candidates == table.candidates, router, "its pool", allowed=table.names, got=estimate.names
    )
    require(estimate.quality_QM.dtype == np.float64, router, "dtype of quality_QM", allowed="float64")


def a_missing_quality_is_not_zero(router: Router) -> None:
    """A candidate that was recorded on half of the queries, at random, is estimated about the same."""
    queries = small_queries(96)
    quality_QM, cost_usd_QM = known_values(queries)
    whole = _mean_quality(router, dense_table(queries, quality_QM, cost_usd_QM))
    holes_QM = quality_QM.copy()
    holes_QM[make_rng(3, "checks", "holes").permutation(96)[:48], _ELK] = np.nan
    holed = _mean_quality(router, dense_table(queries, holes_QM, cost_usd_QM))
    is_same = np.isnan(whole) or abs(whole - holed) < 0.15
    what = "the mean quality of a candidate fell because half of its cells are unknown"
    require(is_same, router, what, allowed=f"within 0.15 of {whole:.3f}", got=round(holed, 3))


def nobody_is_judged_without_evidence(router: Router) -> None:
    """A candidate without one outcome is unknown (NaN), or at least its estimate is not 0 and not sure."""
    queries = small_queries()
    quality_QM, cost_usd_QM = known_values(queries)
    quality_QM[:, _YAK] = np.nan
    estimate = router.clone().fit(dense_table(queries, quality_QM, cost_usd_QM)).estimate(fresh_queries())
    known_Q = ~np.isnan(estimate.quality_QM[:, _YAK])
    value_Q = estimate.quality_QM[known_Q, _YAK]
    require((value_Q > 0.05).all(), router, "a never observed candidate is taken for a bad one", got=value_Q)
    others_QM = np.delete(estimate.spread_QM, _YAK, axis=1)[known_Q]
    spread_Q = estimate.spread_QM[known_Q, _YAK]
    if value_Q.size and np.isfinite(others_QM).all():
        is_unsure = np.isnan(spread_Q).all() or (spread_Q >= others_QM.max(axis=1)).all()
        require(is_unsure, router, "a never observed candidate is estimated with confidence", got=spread_Q)


def few_outcomes_leave_it_unsure(router: Router) -> None:
    """A candidate that was right one to five times is less sure than one of many outcomes, and not certain.

    It is so whether it stands in the table or joins by `add_candidate`, if the router takes newcomers.
    """
    queries = small_queries()
    quality_QM, cost_usd_QM = known_values(queries)
    whole = router.clone().fit(dense_table(queries, quality_QM, cost_usd_QM)).estimate(fresh_queries(30))
    many = float(whole.spread_QM[:, _ELK].mean())
    if np.isnan(many):
        return
    few_QM = quality_QM.copy()
    few_QM[5:, _ELK], few_QM[:5, _ELK] = np.nan, 1.0
    _require_unsure(router, _estimate(router, dense_table(queries, few_QM, cost_usd_QM)), _ELK, 5, many)
    others = [name for name in small_table().names if name != CANDIDATES[_ELK].name]
    joined = router.clone().fit(small_table().select(candidates=others))
    for at, (num, candidate) in enumerate(((1, CANDIDATES[_ELK]), (5, Candidate(model="gnu"))), start=_ELK):
        probe = dense_table(
            queries[:num], np.ones((num, 1)), cost_usd_QM[:num, _ELK:], candidates=[candidate]
        )
        try:
            joined.add_candidate(candidate, probe)
        except InputError:
            return
        _require_unsure(router, joined.estimate(fresh_queries(30)), at, num, many)


def _require_unsure(router: Router, estimate: Estimate, column: int, num: int, many: float) -> None:
    spread_Q = estimate.spread_QM[:, column]
    is_wide = np.isnan(spread_Q).all() or (spread_Q.min() > 0 and spread_Q.mean() >= many)
    what = f"the spread of a candidate with {num} outcomes, all alike"
    require(is_wide, router, what, allowed=f"above 0, and on average at least {many:.4f}", got=spread_Q)


def an_unknown_cost_stays_unknown(router: Router) -> None:
    """Where no cost was recorded and there is no price card, the cost is NaN, not 0."""
    queries = small_queries()
    quality_QM, cost_usd_QM = known_values(queries)
    cost_usd_QM[:, _YAK] = np.nan
    table = dense_table(queries, quality_QM, cost_usd_QM)
    cost_Q = router.clone().fit(table).estimate(fresh_queries()).cost_usd_QM[:, _YAK]
    require(np.isnan(cost_Q).all(), router, "the cost of a candidate without any", allowed="NaN", got=cost_Q)


def a_missing_cost_is_not_free(router: Router) -> None:
    """A candidate whose cost was recorded on half of the queries is estimated to cost about the same."""
    queries = small_queries(96)
    quality_QM, cost_usd_QM = known_values(queries)
    whole = _mean_cost(router, dense_table(queries, quality_QM, cost_usd_QM))
    cost_usd_QM[make_rng(4, "checks", "holes").permutation(96)[:48], _ELK] = np.nan
    holed = _mean_cost(router, dense_table(queries, quality_QM, cost_usd_QM))
    is_same = np.isnan(whole) or 0.75 < holed / whole < 1.33
    what = "the mean cost of a candidate changed because half of its costs are unknown"
    require(is_same, router, what, allowed=f"about {whole:.5f} usd", got=round(holed, 5))


def a_latency_that_nobody_measured_is_unknown(router: Router) -> None:
    """Without a recorded latency the estimate has none."""
    table = small_table()
    blind = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
    )
    latency_s_QM = router.clone().fit(blind).estimate(fresh_queries()).latency_s_QM
    require(np.isnan(latency_s_QM).all(), router, "a latency that was never recorded", allowed="NaN")


def _estimate(router: Router, table: OutcomeTable) -> Estimate:
    return router.clone().fit(table).estimate(fresh_queries(30))


def _mean_quality(router: Router, table: OutcomeTable) -> float:
    return float(_estimate(router, table).quality_QM[:, _ELK].mean())


def _mean_cost(router: Router, table: OutcomeTable) -> float:
    return float(_estimate(router, table).cost_usd_QM[:, _ELK].mean())


CHECKS: tuple[Callable[[Router], None], ...] = (
    estimates_lie_in_their_ranges,
    estimates_have_the_pools_shape,
    a_missing_quality_is_not_zero,
    nobody_is_judged_without_evidence,
    an_unknown_cost_stays_unknown,
    a_missing_cost_is_not_free,
    a_latency_that_nobody_measured_is_unknown,
)
"""The promises about what is unknown."""

SLOW_CHECKS: tuple[Callable[[Router], None], ...] = (few_outcomes_leave_it_unsure,)
"""Those of them that fit three times."""
