"""This module says which candidates of a table can be learned, and of which no price is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import Bools, Floats, OutcomeTable

_MAX_NAMES = 5


def learnable(table: OutcomeTable) -> tuple[OutcomeTable, tuple[str, ...]]:
    """Return the table of the candidates that were ever graded, and a note that names the others.

    Raises `TableError` where nobody was: nothing can be learned from such a table.
    """
    seen_M: Bools = np.asarray(table.observed_QM.any(axis=0))
    if not seen_M.any():
        raise TableError(
            sentence(
                "train: the table holds no quality",
                allowed="a number in [0, 1] for every answer that was graded",
                got=f"{table.num_rows} rows, and the quality of each is unknown",
                do="grade some answers first, and check that the column is called 'quality'",
            )
        )
    if seen_M.all():
        return table, ()
    kept = [name for name, is_seen in zip(table.names, seen_M, strict=True) if is_seen]
    others = [name for name in table.names if name not in set(kept)]
    return table.select(candidates=kept), (_left_out(others),)


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


def _left_out(names: Sequence[str]) -> str:
    verb, pronoun = ("are", "them") if len(names) > 1 else ("is", "it")
    return (
        f"{_listed(names)} {verb} left out of the pool: no answer of {pronoun} was graded; "
        f"ask {pronoun} some tens of the queries and fit again"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
