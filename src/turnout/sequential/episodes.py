"""This module asks every candidate once about every query, for those who learn before they play."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.sequential.contracts import Environment
from turnout.sequential.fixed import FixedOrder
from turnout.sequential.loop import run
from turnout.sequential.trace import Observed


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleCalls:
    """What came of one call per query and candidate."""

    queries: tuple[Query, ...]
    names: tuple[str, ...]
    seen: tuple[tuple[Observed, ...], ...]
    """Observations, query by query, candidate by candidate."""
    quality_QM: Floats
    """Quality of each answer, 0 for a failed call, NaN where nobody can tell."""
    usd_QM: Floats
    """What each call cost; an unknown charge counts as 0, as everywhere."""


def refuse_unknown_charges(who: str, seen: Iterable[Observed]) -> None:
    """Raise `InputError` for an answer whose charge nobody knows, which would be free at any price."""
    for observed in seen:
        if observed.error is None and math.isnan(observed.usd):
            what = f"{who}: what a call to {observed.call.candidate!r} cost"
            do = "give its model a price card, record what it cost, or take price=0"
            raise InputError(
                sentence(what, allowed="known, where the price is above 0", got="unknown", do=do)
            )


def single_calls(
    environment: Environment, queries: Sequence[Query], names: Sequence[str] | None = None
) -> SingleCalls:
    """Ask each of `names` (all when None) once about each query; every call is an episode of its own."""
    known = tuple(candidate.name for candidate in environment.candidates)
    pool = known if names is None else tuple(names)
    stray = [name for name in pool if name not in known]
    if stray or not queries:
        got = stray[0] if stray else "no query"
        raise InputError(sentence("single_calls", allowed=f"queries, and names among {known}", got=got))
    orders = [FixedOrder(order=(name,)) for name in pool]
    outcomes = [[run(environment, order, query) for order in orders] for query in queries]
    return SingleCalls(
        queries=tuple(queries),
        names=pool,
        seen=tuple(tuple(outcome.trace.observed[0] for outcome in row) for row in outcomes),
        quality_QM=np.array([[outcome.quality for outcome in row] for row in outcomes]),
        usd_QM=np.array([[outcome.usd for outcome in row] for row in outcomes]),
    )
