"""This module lists the promises of a router, and checks the ones about learning and remembering."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from turnout.checks import router_order, router_text, router_unknown
from turnout.checks.compare import frozen_copy, require_same_estimate, require_same_state
from turnout.checks.configured import (
    CONFIGURED_CHECKS,
    require_artifact_round_trip,
    require_not_fitted_error,
    require_state_round_trip,
)
from turnout.checks.fixtures import (
    CANDIDATES,
    dense_table,
    fresh_queries,
    known_values,
    small_queries,
    small_table,
)
from turnout.checks.report import Check, bind, require
from turnout.core import artifact
from turnout.core.contracts import Configured, Router
from turnout.core.errors import InputError
from turnout.core.estimate import Estimate


def check_router(router: Router) -> Iterator[Check]:
    """Yield the checks of a router; it is cloned, never fitted itself.

    Example
    -------
    >>> from turnout.checks import check_router, run
    >>> from turnout.routers import UniformRouter
    >>> run(check_router(UniformRouter())).is_clean
    True
    """
    return bind(
        router,
        (*CONFIGURED_CHECKS, *ROUTER_CHECKS),
        slow=SLOW_ROUTER_CHECKS,
        kind=Router,
        ground=(an_estimate_is_an_estimate,),
    )


def fit_returns_the_router(router: Router) -> None:
    """`fit` returns self, so that calls can be chained, and makes it fitted."""
    new = router.clone()
    require(new.fit(small_table()) is new, router, "fit did not return the router itself")
    require(new.is_fitted, router, "it is not fitted after fit")


def an_estimate_is_an_estimate(router: Router) -> None:
    """`fit` returns a router, and `estimate` an `Estimate` with one row a query."""
    queries = fresh_queries()
    fitted = router.clone().fit(small_table())
    require(
        isinstance(fitted, Router), router, "fit returned no router", allowed="the router itself", got=fitted
    )
    found: object = fitted.estimate(queries)
    require(
        isinstance(found, Estimate),
        router,
        "estimate returned no estimate",
        allowed="a turnout.core.estimate.Estimate",
        got=type(found).__name__,
        do="build it with `make_estimate(candidates, quality_QM)`",
    )
    rows = found.num_queries if isinstance(found, Estimate) else 0
    require(rows == len(queries), router, "rows of an estimate", allowed=len(queries), got=rows)


def estimating_before_fit_is_refused(router: Router) -> None:
    """Without a table there is no pool, so `estimate` raises `NotFittedError`."""
    new = router.clone()
    require_not_fitted_error(router, "estimate", lambda: new.estimate(fresh_queries()))


def fitting_changes_no_table(router: Router) -> None:
    """The training table is the caller's; it is the same to the bit after `fit`."""
    table = small_table()
    before = [array.copy() for array in (table.quality, table.cost_usd, table.query_index)]
    router.clone().fit(table)
    for old, new in zip(before, (table.quality, table.cost_usd, table.query_index), strict=True):
        require(np.array_equal(old, new, equal_nan=True), router, "fit changed the table it was given")


def estimating_does_not_learn(router: Router) -> None:
    """The state is the same to the bit before and after, and so is the second answer."""
    new = router.clone().fit(small_table())
    before = frozen_copy(new.state())
    first = new.estimate(fresh_queries())
    new.estimate(small_queries(20, seed=5, start=500))
    require_same_state(router, "estimating learned something", before, new.state())
    require_same_estimate(router, "a second estimate differs", first, new.estimate(fresh_queries()))


def the_same_seed_gives_the_same_result(router: Router) -> None:
    """Two clones fitted on one table agree to the bit."""
    first, second = (router.clone().fit(small_table()).estimate(fresh_queries()) for _ in range(2))
    require_same_estimate(router, "two fits of one configuration differ", first, second)


def fitting_again_forgets(router: Router) -> None:
    """A router that saw another table before predicts as one that did not."""
    other = small_table(30, seed=7).select(candidates=["owl", "elk"])
    again = router.clone().fit(other).fit(small_table()).estimate(fresh_queries())
    once = router.clone().fit(small_table()).estimate(fresh_queries())
    require_same_estimate(router, "fit did not forget the table before", once, again)


def a_clone_has_learned_nothing(router: Router) -> None:
    """A clone of a fitted router must be fitted before it answers."""
    copy = router.clone().fit(small_table()).clone()
    require(not copy.is_fitted, router, "a clone of a fitted router claims to be fitted")
    require_not_fitted_error(router, "clone().estimate", lambda: copy.estimate(fresh_queries()))


def its_state_survives_a_round_trip(router: Router) -> None:
    """What `state` returns is enough for `restore` to give the same estimates to the bit."""
    new = router.clone().fit(small_table())
    require_state_round_trip(new, lambda thing: _require_same(new, thing))


def saving_before_fit_is_refused(router: Router) -> None:
    """There is nothing to save before `fit`."""
    new = router.clone()
    with tempfile.TemporaryDirectory() as folder:
        require_not_fitted_error(router, "save", lambda: artifact.save(new, folder))


def saving_and_loading_changes_nothing(router: Router) -> None:
    """The loaded artifact gives the same estimates to the bit."""
    new = router.clone().fit(small_table())
    require_artifact_round_trip(new, lambda thing: _require_same(new, thing))


def an_added_candidate_leaves_the_others_alone(router: Router) -> None:
    """`add_candidate` refuses, or adds one column in which the others cannot be told from before."""
    queries = small_queries()
    quality_QM, cost_usd_QM = known_values(queries)
    probe = dense_table(queries[:20], quality_QM[:20, 3:], cost_usd_QM[:20, 3:], candidates=CANDIDATES[3:])
    new = router.clone().fit(small_table().select(candidates=["owl", "ant", "yak"]))
    before = new.estimate(fresh_queries())
    try:
        new.add_candidate(CANDIDATES[3], probe)
    except InputError as error:
        require("elk" in str(error), router, "the refusal does not name the candidate", got=str(error))
        require_same_estimate(
            router, "a refused candidate left traces", before, new.estimate(fresh_queries())
        )
        return
    after = new.estimate(fresh_queries())
    require("elk" in after.names, router, "the added candidate is missing", allowed="elk", got=after.names)
    kept = after.reorder(before.names)
    require_same_estimate(router, "adding one candidate changed another", before, kept, tolerance=1e-9)


def _require_same(router: Router, thing: Configured) -> None:
    require(isinstance(thing, Router), router, "what came back is no router", got=type(thing).__name__)
    if isinstance(thing, Router):
        before, after = router.estimate(fresh_queries()), thing.estimate(fresh_queries())
        require(before.candidates == after.candidates, router, "the pool changed on the way")
        require_same_estimate(router, "the estimates changed on the way", before, after)


ROUTER_CHECKS: tuple[Callable[[Router], None], ...] = (
    fit_returns_the_router,
    estimating_before_fit_is_refused,
    fitting_changes_no_table,
    estimating_does_not_learn,
    the_same_seed_gives_the_same_result,
    fitting_again_forgets,
    a_clone_has_learned_nothing,
    its_state_survives_a_round_trip,
    saving_before_fit_is_refused,
    saving_and_loading_changes_nothing,
    an_added_candidate_leaves_the_others_alone,
    *router_order.CHECKS,
    *router_unknown.CHECKS,
    *router_text.CHECKS,
)
"""The promises of every router."""

SLOW_ROUTER_CHECKS: tuple[Callable[[Router], None], ...] = (
    router_text.a_text_of_a_megabyte_works,
    *router_unknown.SLOW_CHECKS,
)
"""The promises of every router whose check takes long."""
