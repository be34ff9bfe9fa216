"""This module reads tables with one row per query and a few columns per candidate, from CSV or parquet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from turnout.core.errors import TableError, sentence
from turnout.datasets.reading import csv_rows, require_file

Row = Mapping[str, Any]


_ROW_LABELS = frozenset({"", "Unnamed: 0", "__index_level_0__"})
"""Names under which pandas exports the labels of its rows; they say nothing."""


def wide_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns without the row labels of an export from pandas."""
    return [name for name in columns if name not in _ROW_LABELS]


def wide_rows(path: Path, *, is_parquet: bool | None = None) -> tuple[list[str], Iterator[tuple[str, Row]]]:
    """Return the column names and an iterator of (place, cells by column).

    `place` names file and line (CSV) or row (parquet), to begin an error sentence with. None tells the kind
    by the file's name.
    """
    if path.suffix.lower() == ".parquet" if is_parquet is None else is_parquet:
        return _parquet_rows(path)
    columns, rows = csv_rows(path)
    return wide_columns(columns), ((f"{str(path)!r}, line {line}", row) for line, row in rows)


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, Row]]]:
    # pyarrow stays out of `import turnout.datasets`.
    from turnout.core.parquet import read_file

    data = read_file(require_file(path))
    # Batches bound the memory: a cell may hold a megabyte of text.
    rows = (row for batch in data.to_batches(max_chunksize=1024) for row in batch.to_pylist())
    return wide_columns(data.column_names), (
        (f"{str(path)!r}, row {i}", _strip(row)) for i, row in enumerate(rows)
    )


def _strip(row: dict[str, Any]) -> Row:
    # pandas writes a missing number as NaN, not as null: both are unknown.
    return {name: None if value != value else value for name, value in row.items()}


def require_columns(path: Path, columns: Collection[str], required: Collection[str]) -> None:
    """Raise `TableError` naming the first required column that is missing."""
    missing = [name for name in required if name not in columns]
    if missing:
        raise TableError(
            sentence(
                f"{str(path)!r} lacks the column {missing[0]!r}",
                allowed=f"at least the columns {', '.join(required)}",
                got=sorted(columns),
            )
        )


def refuse_columns(path: Path, extra: Collection[str], *, allowed: str) -> None:
    """Raise `TableError` if any column is left over that the format does not explain."""
    if extra:
        raise TableError(
            sentence(
                f"{str(path)!r} has columns that the format does not explain",
                allowed=allowed,
                got=sorted(extra),
                do="drop them, or name them in the option 'ignore'",
            )
        )


def text_cell(place: str, column: str, value: object, *, may_be_empty: bool = False) -> str | None:
    """Return a text cell; None where it is empty and that is allowed."""
    if isinstance(value, str) and value:
        return value
    if may_be_empty and (value is None or value == ""):
        return None
    raise TableError(sentence(f"{place}: column {column!r}", allowed="text that is not empty", got=value))
