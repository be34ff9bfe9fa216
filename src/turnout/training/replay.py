"""This module replays decisions on recorded outcomes: what each would have given and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.contracts import Policy, Router
from turnout.core.decision import NONE, Decisions
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.rng import make_rng
from turnout.policies import feasible, sweep

Outcomes = tuple[Floats, ...]
"""Quality and cost in USD of every (query, candidate), shape (Q, M) each, and what else is to be picked."""


def realised(
    decisions: Decisions, table: OutcomeTable, outcomes: Outcomes | None = None
) -> tuple[Floats, ...]:
    """Return quality and cost of each choice, both of shape (Q,), NaN where not known.

    They are the recorded ones, or `outcomes`, which stand for those of the table's queries and candidates.
    """
    recorded = (table.quality_QM, table.cost_usd_QM) if outcomes is None else outcomes
    column_Q = _columns(decisions, table)
    rows = np.arange(len(decisions))
    known_Q = column_Q != NONE
    return tuple(np.where(known_Q, value_QM[rows, column_Q], np.nan) for value_QM in recorded)


def _columns(decisions: Decisions, table: OutcomeTable) -> Ints:
    """Return which of the table's candidates each choice is, shape (Q,); -1 for nobody and for a stranger."""
    if decisions.candidates == table.candidates:
        return decisions.choice_Q
    columns = {name: index for index, name in enumerate(table.names)}
    names = [candidate.name for candidate in decisions.candidates]
    lookup_M = np.array([*(columns.get(name, NONE) for name in names), NONE])
    return lookup_M[decisions.choice_Q]


def realised_sweep(
    router: Router, policy: Policy, table: OutcomeTable, prices: Sequence[float] | Floats, *, seed: int
) -> tuple[Floats, ...]:
    """Return recorded quality and cost at every price, both of shape (P, Q)."""
    return realised_estimate(router.estimate(table.queries), policy, table, prices, seed=seed)


def realised_estimate(
    estimate: Estimate,
    policy: Policy,
    table: OutcomeTable,
    prices: Sequence[float] | Floats,
    *,
    seed: int,
    outcomes: Outcomes | None = None,
) -> tuple[Floats, ...]:
    """Return the same for what was estimated of the table's queries; `outcomes` stand for its own."""
    estimate = estimate.restrict(feasible(table.queries, estimate.candidates))
    rng = make_rng(seed, "sweep")
    # One price at a time: the rankings of all of them are as many tables.
    found = [
        realised(decisions, table, outcomes)
        for price in prices
        for decisions in sweep(policy, estimate, [price], rng=rng)
    ]
    return tuple(np.stack(part) for part in zip(*found, strict=True))
