"""This module says which candidates of a table can be learned, and of which no price is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import Bools, Floats, OutcomeTable

MIN_GRADED = 10
"""Graded answers below which a candidate is left out beside others with many."""
_FEW = 0.1
_MAX_NAMES = 5


def learnable(table: OutcomeTable) -> tuple[OutcomeTable, tuple[str, ...]]:
    """Return the table of the candidates that were graded often enough, and notes that name the others.

    One of fewer than `MIN_GRADED` answers is left out where another has more than ten times as many: its mean
    is luck, so that it would be chosen for that, and nothing can be promised of it. Where everybody has few
    they all stay. Raises `TableError` where nobody was graded: nothing can be learned from such a table.
    """
    num_M = table.observed_QM.sum(axis=0)
    if not num_M.any():
        raise TableError(
            sentence(
                "train: the table holds no quality",
                allowed="a number in [0, 1] for every answer that was graded",
                got=f"{table.num_rows} rows, and the quality of each is unknown",
                do="grade some answers first, and check that the column is called 'quality'",
            )
        )
    never_M: Bools = num_M == 0
    hardly_M: Bools = ~never_M & (num_M < MIN_GRADED) & (num_M < _FEW * num_M.max())
    if not (never_M | hardly_M).any():
        return table, ()
    never, hardly = (_names_of(table, mask_M) for mask_M in (never_M, hardly_M))
    notes = [_left_out(never, "no answer of {} was graded")] if never else []
    if hardly:
        notes.append(_left_out(hardly, f"fewer than {MIN_GRADED} answers of {{}} were graded"))
    return table.select(candidates=_names_of(table, ~(never_M | hardly_M))), tuple(notes)


def about_prices(names: Sequence[str], usd_M: Floats) -> tuple[str, ...]:
    """Return a note that names the candidates without a known cost; none where nobody's cost is known."""
    is_known_M = np.isfinite(usd_M)
    if is_known_M.all() or not is_known_M.any():
        return ()
    unpriced = [name for name, is_known in zip(names, is_known_M, strict=True) if not is_known]
    many = len(unpriced) > 1
    return (
        f"no price is known of {_listed(unpriced)}: where money is asked for, "
        f"{'they stand' if many else 'it stands'} behind every candidate of known cost; record cost_usd, or "
        "tokens and the prices in models.parquet (docs/datasets.md)",
    )


def _names_of(table: OutcomeTable, mask_M: Bools) -> list[str]:
    return [name for name, is_in in zip(table.names, mask_M.tolist(), strict=True) if is_in]


def _left_out(names: Sequence[str], why: str) -> str:
    verb, pronoun = ("are", "them") if len(names) > 1 else ("is", "it")
    return (
        f"{_listed(names)} {verb} left out of the pool: {why.format(pronoun)}; "
        f"ask {pronoun} some tens of the queries and fit again"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
