"""This module scores runs and baselines on the queries that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.rng import make_rng
from turnout.evaluation.aiq import check_range
from turnout.evaluation.baselines import best_per_group, best_single, eligible, oracle_choices
from turnout.evaluation.cells import recorded
from turnout.evaluation.columns import Columns, make_columns, make_plan
from turnout.evaluation.coverage import Coverage, find_coverage
from turnout.evaluation.scores import Means, Outcomes, means

if TYPE_CHECKING:
    from turnout.core.outcomes import Ints, OutcomeTable
    from turnout.evaluation.cells import Cells
    from turnout.evaluation.runs import Choices


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the numbers are made."""

    seed: int
    num_resamples: int
    confidence: float
    groups_Q: Ints | None
    """Dense group numbers for the cluster bootstrap, shape (Q,) of the whole table."""
    cost_range_usd: tuple[float, float] | None


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """Everything that the lines of a report are made of."""

    runs: tuple[Choices, ...]
    table: OutcomeTable
    """The scored queries only."""
    is_recorded: bool
    """Whether every cell counts as it was recorded, with nothing that stands in for it."""
    coverage: Coverage
    outcomes: Outcomes
    means: Means
    columns: Columns
    choice_QU: Ints
    """The choices behind the first columns, on the scored queries."""
    oracle_Q: Ints
    best_single: str
    best_per_group: Mapping[str | None, str]
    strong: str | None
    """The better of two candidates on the training table; None when there are more."""
    cost_range_usd: tuple[float, float] | None


def judge(
    runs: tuple[Choices, ...],
    table: OutcomeTable,
    train: OutcomeTable | None,
    settings: Settings,
    cells: Cells | None = None,
) -> Judged:
    """Choose the baselines on `train`, find the common queries, and take all means on them.

    `cells` are what the cells of `table` count as; None takes what was recorded.
    """
    worth = recorded(table) if cells is None else cells.fit(table)
    teacher = table if train is None else _same_candidates(train, table)
    single, per_group = best_single(teacher), best_per_group(teacher)
    strong = single if len(table.names) == 2 else None
    plan = make_plan(runs, table, single=single, per_group=per_group)
    coverage = find_coverage(table, plan.choice_QU, worth)
    keep_Q = coverage.keep_Q
    kept = table if keep_Q.all() else table.where(keep_Q)
    worth = worth if keep_Q.all() else worth.rows(keep_Q)
    oracle_Q = oracle_choices(
        eligible(worth.hindsight_QM, worth.hindsight_usd_QM, has_costs=coverage.has_costs),
        worth.hindsight_usd_QM if coverage.has_costs else None,
        kept.names,
    )
    outcomes, columns = make_columns(plan, coverage, kept, worth, oracle_Q=oracle_Q, strong=strong)
    scored = means(
        outcomes,
        num_resamples=settings.num_resamples,
        confidence=settings.confidence,
        rng=make_rng(settings.seed, "bootstrap"),
        groups_Q=None if settings.groups_Q is None else _renumber(settings.groups_Q[keep_Q]),
    )
    return Judged(
        runs=runs,
        table=kept,
        is_recorded=cells is None,
        coverage=coverage,
        outcomes=outcomes,
        means=scored,
        columns=columns,
        choice_QU=plan.choice_QU[keep_Q],
        oracle_Q=oracle_Q,
        best_single=single,
        best_per_group=per_group,
        strong=strong,
        cost_range_usd=_cost_range(scored, columns, settings.cost_range_usd),
    )


def _same_candidates(train: OutcomeTable, table: OutcomeTable) -> OutcomeTable:
    shared = [name for name in train.names if name in set(table.names)]
    if not shared:
        raise InputError(
            sentence(
                "evaluate: train holds none of the table's candidates",
                allowed=f"some of {list(table.names)[:5]}",
                got=list(train.names)[:5],
            )
        )
    return train if len(shared) == len(train.names) else train.select(candidates=shared)


def _renumber(groups_Q: Ints) -> Ints:
    numbers: Ints = np.unique(groups_Q, return_inverse=True)[1]
    return numbers


def _cost_range(
    scored: Means, columns: Columns, given: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Return the range of budgets: the one given, or the cheapest and the dearest single candidate."""
    if scored.cost_usd_U is None:
        return None
    if given is not None:
        check_range(*given)
        return given
    if not columns.single:
        return None
    costs = scored.cost_usd_U[list(columns.single.values())]
    low, high = float(costs.min()), float(costs.max())
    return (low, high) if high > low else None
