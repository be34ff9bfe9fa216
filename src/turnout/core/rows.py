"""This module checks the rows of an outcome table and says which row is wrong, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from turnout.core.candidate import check_unique
from turnout.core.errors import TableError, sentence

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable

MEASURES = ("quality", "cost_usd", "input_tokens", "output_tokens", "latency_s")
"""The measured columns of a row, in the order in which the fingerprint reads them."""

_REMEDIES = {
    "query_index": "point to a query of the table, counted from 0",
    "candidate_index": "point to a candidate of the table, counted from 0",
    "quality": "rescale the score to [0, 1], for example a judge's 1 to 10 by dividing by 10",
    "cost_usd": "write null where the cost is unknown, and 0 only for what was free",
}
"""What to do about a wrong value, by column."""

Column = npt.NDArray[Any]


def check_table(table: OutcomeTable) -> None:
    """Raise `TableError` or `InputError` for the first rule the table breaks."""
    check_unique("OutcomeTable: candidates", table.candidates)
    ids = [query.id for query in table.queries]
    _check_ids(ids)
    num_rows = table.num_rows
    for name in ("query_index", "candidate_index", "sample"):
        shape = getattr(table, name).shape
        if shape != (num_rows,):
            raise TableError(
                sentence(f"OutcomeTable: {name}", allowed=f"shape (N,) = ({num_rows},)", got=shape)
            )
    _check_rows(table, "query_index", table.query_index, lambda x: (x < 0) | (x >= len(ids)), "a known query")
    _check_rows(
        table,
        "candidate_index",
        table.candidate_index,
        lambda x: (x < 0) | (x >= len(table.candidates)),
        "a known candidate",
    )
    _check_rows(
        table, "quality", table.quality, lambda x: (x < 0) | (x > 1) | np.isinf(x), "[0, 1] or unknown"
    )
    for name in MEASURES[1:]:
        allowed = "a finite number of at least 0, or unknown"
        _check_rows(table, name, getattr(table, name), lambda x: (x < 0) | np.isinf(x), allowed)
    _check_duplicates(table)


def _check_ids(ids: list[str]) -> None:
    if not ids:
        raise TableError(
            sentence("OutcomeTable: queries", allowed="at least one", got="none", do="give the queries")
        )
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    row = next(row for row, name in enumerate(ids) if first.setdefault(name, row) != row)
    raise TableError(
        sentence(
            f"OutcomeTable: queries: row {row} repeats the id of row {first[ids[row]]}",
            allowed="every id once",
            got=ids[row],
            do="keep one row a query; repeated answers go into the outcomes, numbered by 'sample'",
        )
    )


def _check_rows(
    table: OutcomeTable,
    name: str,
    column: Column,
    is_wrong: Callable[[Column], Column],
    allowed: str,
) -> None:
    wrong = np.flatnonzero(is_wrong(column))
    if not wrong.size:
        return
    row = int(wrong[0])
    where = f"OutcomeTable: {name} in row {row}"
    if name not in ("query_index", "candidate_index"):
        query = table.queries[int(table.query_index[row])].id
        where += f" (query {query!r}, candidate {table.names[int(table.candidate_index[row])]!r})"
    do = _REMEDIES.get(name, "write null where nothing was measured")
    if name == "quality" and not np.isfinite(column[row]):
        do = "write null where nothing was graded"
    more = f" and {wrong.size - 1} more rows" if wrong.size > 1 else ""
    raise TableError(sentence(where + more, allowed=allowed, got=float(column[row]), do=do))


def _check_duplicates(table: OutcomeTable) -> None:
    if not table.num_rows:
        return
    lowest = table.sample.min()
    width = int(table.sample.max() - lowest) + 1
    key = (table.query_index * len(table.candidates) + table.candidate_index) * width
    key = key + (table.sample - lowest)
    if _are_distinct(key):
        return
    order = np.argsort(key, kind="stable")
    first = int(order[1:][np.diff(key[order]) == 0][0])
    query = table.queries[int(table.query_index[first])].id
    name = table.names[int(table.candidate_index[first])]
    raise TableError(
        sentence(
            f"OutcomeTable: row {first} repeats (query {query!r}, candidate {name!r}, "
            f"sample {int(table.sample[first])})",
            allowed="every (query, candidate, sample) once",
            do="number repetitions in the column 'sample'",
        )
    )


def _are_distinct(key: Column) -> bool:
    """Return whether no number comes twice; where they are dense, counting is quicker than hashing."""
    low, high = int(key.min()), int(key.max())
    if high - low <= 8 * key.size:
        return bool(np.bincount(key - low).max() == 1)
    return bool(np.unique(key).size == key.size)
