"""This module decides which queries count: those on which everything that is compared was observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.decision import NONE
from turnout.core.errors import TableError, sentence
from turnout.core.validation import check_number

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Ints, OutcomeTable
    from turnout.evaluation.cells import Cells

MAX_DROPPED = 0.05
"""Above this share of dropped queries a report warns."""
MIN_PRICED = 0.5
"""Costs are reported only if at least this share of the queries with known quality has known costs."""


@final
@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Which queries are scored, and why the others are not."""

    keep_Q: Bools
    """Whether the query is scored, shape (Q,) of the whole table."""
    num_queries: int
    """Queries in the table."""
    num_scored: int
    """Queries on which everything compared was observed."""
    dropped_quality: int
    """Queries where some compared choice has no recorded quality."""
    dropped_cost: int
    """Further queries where some compared choice has no recorded cost."""
    has_costs: bool
    """Whether money is reported."""
    cost_note: str
    """Why money is not reported; empty when it is."""

    @property
    def dropped_share(self) -> float:
        """Share of the queries that are not scored."""
        return 1.0 - self.num_scored / self.num_queries


def find_coverage(table: OutcomeTable, choice_QU: Ints, worth: Cells) -> Coverage:
    """Return the common set of queries for the choices of everything compared, shape (Q, U).

    A refusal (-1) is always scored. A query on which one compared choice is not known of is dropped for
    all, so that every number of a report is about the same queries; nothing is imputed here.
    """
    is_known_QM: Bools = np.asarray(np.isfinite(worth.quality_QM))
    known_Q = _all_known(is_known_QM, choice_QU) & is_known_QM.any(axis=1)
    if not known_Q.any():
        raise TableError(
            sentence(
                "evaluate: no query has an observed outcome for everything that is compared",
                do="select candidates that share queries, for example with turnout.evaluation.dense_part, or "
                "say with cells= what stands in for the rest, as turnout.training.study does",
            )
        )
    has_costs, note, priced_Q = True, "", known_Q
    if not table.has_costs:
        has_costs, note = False, "the table records no costs"
    else:
        # The oracle's cost must be known too: it may be any of the observed candidates.
        is_priced_QM = ~np.isnan(worth.cost_usd_QM)
        any_priced_Q = (is_priced_QM & is_known_QM).any(axis=1)
        priced_Q = known_Q & _all_known(is_priced_QM, choice_QU) & any_priced_Q
        if priced_Q.sum() < MIN_PRICED * known_Q.sum():
            share = priced_Q.sum() / known_Q.sum()
            note = f"only {share:.0%} of the queries have a known cost for everything compared{_free(table)}"
            has_costs, priced_Q = False, known_Q
    return Coverage(
        keep_Q=priced_Q,
        num_queries=known_Q.size,
        num_scored=int(priced_Q.sum()),
        dropped_quality=int((~known_Q).sum()),
        dropped_cost=int((known_Q & ~priced_Q).sum()),
        has_costs=has_costs,
        cost_note=note,
    )


def dense_part(table: OutcomeTable, *, min_share: float = 0.95) -> OutcomeTable:
    """Return the complete part of a sparse table.

    First the candidates observed on at least `min_share` of the queries, then the queries on which all
    of those were observed. Raises `TableError` when nothing is left.
    """
    check_number("dense_part: min_share", min_share, low=0.0, high=1.0)
    share_M = table.observed_QM.mean(axis=0)
    names = [name for name, share in zip(table.names, share_M, strict=True) if share >= min_share]
    if not names:
        raise TableError(
            sentence(
                f"dense_part: no candidate is observed on {min_share:.0%} of the queries",
                got=f"at most {share_M.max():.0%}",
                do="lower min_share",
            )
        )
    part = table.select(candidates=names)
    complete_Q = np.asarray(part.observed_QM.all(axis=1))
    return part if complete_Q.all() else part.where(complete_Q)


def _free(table: OutcomeTable) -> str:
    priced = set(np.flatnonzero((~np.isnan(table.cost_usd_QM)).any(axis=0)).tolist())
    names = [name for column, name in enumerate(table.names) if column not in priced]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    if not names:
        return ""
    return f"; without any cost: {', '.join(names[:3])}{more} (price them, or leave them out of the table)"


def _all_known(is_known_QM: Bools, choice_QU: Ints) -> Bools:
    known_QU = np.take_along_axis(is_known_QM, np.maximum(choice_QU, 0), axis=1)
    known_Q: Bools = (known_QU | (choice_QU == NONE)).all(axis=1)
    return known_Q
