"""This module asks routers that anybody may have written, and says in a sentence what was no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from turnout.core.contracts import Router
from turnout.core.errors import InputError, TurnoutError, sentence
from turnout.core.estimate import Estimate
from turnout.core.registry import find_registry

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable
    from turnout.core.query import Query


class Estimates(Protocol):
    """What can be asked: a fitted router, or what stands in for one."""

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the estimate of some queries."""


def fit_router(router: Router, table: OutcomeTable) -> Router:
    """Return the router after `fit`; an exception of its own says which package raised it.

    Raises `InputError` where `fit` returns something else than a router.
    """
    try:
        fitted = router.fit(table)
    except TurnoutError:
        raise
    except Exception as error:
        error.add_note(f"raised by fit of {_origin(router)}")
        raise
    if not isinstance(fitted, Router):
        raise InputError(
            sentence(
                f"fit of {_origin(router)} returned no router",
                allowed="the router itself",
                got=fitted,
                do="end it with `return self`",
            )
        )
    return fitted


def estimate_of(router: Estimates, queries: Sequence[Query]) -> Estimate:
    """Return the router's estimate; raises `InputError` where it answers with something else."""
    estimate = router.estimate(queries)
    if not isinstance(estimate, Estimate):
        raise InputError(
            sentence(
                f"estimate of {_origin(router)} returned no estimate",
                allowed="a turnout.core.estimate.Estimate",
                got=type(estimate).__name__,
                do="build it with `make_estimate(candidates, quality_QM)`",
            )
        )
    if estimate.num_queries != len(queries):
        raise InputError(
            sentence(
                f"estimate of {_origin(router)} has another number of rows than queries",
                allowed=len(queries),
                got=estimate.num_queries,
                do="return one row a query, in their order",
            )
        )
    return estimate


def _origin(router: object) -> str:
    return find_registry("routers").origin(type(router))
