"""This module lines up everything that is compared as columns over the same queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.evaluation.baselines import eligible, group_choices, random_outcome
from turnout.evaluation.scores import ChoiceBook, Outcomes, join, look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from turnout.core.outcomes import Floats, Ints, OutcomeTable
    from turnout.evaluation.cells import Cells
    from turnout.evaluation.coverage import Coverage
    from turnout.evaluation.runs import Choices


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """The distinct columns of choices, and who uses which."""

    choice_QU: Ints
    """Shape (Q, U), over the whole table."""
    head: Mapping[str, int]
    """Column of every run, of best single and of best per group."""
    sweep: Mapping[str, Ints]
    """Columns of every sweep, shape (P,)."""


@final
@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where everything stands among the columns of `Outcomes`."""

    head: Mapping[str, int]
    """Rows of the table: runs and baselines."""
    sweep: Mapping[str, Ints]
    """Points of every sweep, shape (P,)."""
    strong: Mapping[str, Ints]
    """Share of strong calls at every point, shape (P,); empty unless there are two candidates."""
    single: Mapping[str, int]
    """Candidates that were observed on every scored query."""


def make_plan(
    runs: Sequence[Choices], table: OutcomeTable, *, single: str, per_group: Mapping[str | None, str]
) -> Plan:
    """Collect the choices of the runs and of the two baselines that choose before the outcome."""
    book = ChoiceBook()
    head = {run.name: book.add(run.head_Q) for run in runs}
    head["best single"] = book.add(np.full(len(table.queries), table.names.index(single)))
    head["best per group"] = book.add(group_choices(per_group, single, table))
    sweep = {
        run.name: np.array([book.add(choice_Q) for choice_Q in run.sweep_PQ], dtype=np.int64) for run in runs
    }
    return Plan(choice_QU=book.choice_QU, head=head, sweep=sweep)


def make_columns(
    plan: Plan,
    coverage: Coverage,
    kept: OutcomeTable,
    worth: Cells,
    *,
    oracle_Q: Ints,
    strong: str | None,
) -> tuple[Outcomes, Columns]:
    """Look everything up on the scored queries, and add the oracle, random and the single candidates."""
    quality_QM = worth.quality_QM
    cost_QM = worth.cost_usd_QM if coverage.has_costs else None
    hindsight_usd_QM = worth.hindsight_usd_QM if coverage.has_costs else None
    eligible_QM = eligible(quality_QM, worth.cost_usd_QM, has_costs=coverage.has_costs)
    chosen_QU = plan.choice_QU[coverage.keep_Q]
    single_M = _fully_observed(quality_QM, cost_QM)
    parts = [
        look_up(chosen_QU, quality_QM, cost_QM),
        look_up(oracle_Q[:, None], worth.hindsight_QM, hindsight_usd_QM),
        _one_column(*random_outcome(eligible_QM, cost_QM)),
        look_up(np.tile(single_M, (len(kept.queries), 1)), quality_QM, cost_QM),
    ]
    width = chosen_QU.shape[1]
    strong_columns: dict[str, Ints] = {}
    if strong is not None:
        is_strong_QU = (chosen_QU == kept.names.index(strong)).astype(np.float64)
        parts.append(
            Outcomes(quality_QU=is_strong_QU, cost_usd_QU=None if cost_QM is None else 0.0 * is_strong_QU)
        )
        first = width + 2 + single_M.size
        strong_columns = {name: first + columns for name, columns in plan.sweep.items()}
    return join(parts), Columns(
        head={**plan.head, "oracle": width, "random": width + 1},
        sweep=plan.sweep,
        strong=strong_columns,
        single={kept.names[m]: width + 2 + k for k, m in enumerate(single_M.tolist())},
    )


def _one_column(quality_Q: Floats, cost_usd_Q: Floats | None) -> Outcomes:
    return Outcomes(
        quality_QU=quality_Q[:, None], cost_usd_QU=None if cost_usd_Q is None else cost_usd_Q[:, None]
    )


def _fully_observed(quality_QM: Floats, cost_QM: Floats | None) -> Ints:
    known_QM = ~np.isnan(quality_QM)
    if cost_QM is not None:
        known_QM &= ~np.isnan(cost_QM)
    return np.flatnonzero(known_QM.all(axis=0))
