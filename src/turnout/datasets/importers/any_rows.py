"""This module opens a file of rows, whatever its kind: CSV, JSON lines, a JSON list or parquet."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import TableError, sentence
from turnout.datasets.importers.records import places
from turnout.datasets.importers.wide import wide_rows
from turnout.datasets.reading import csv_rows, json_document, require_file

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The rows of a file, and what is known before they are read."""

    rows: Iterator[tuple[str, Row]]
    """(place, cells by column); the place names file and line."""
    total: int
    """Rows, or lines, which are at least as many."""
    header: str | None = None
    """The place of the names of the columns; None where each row has names of its own."""


def open_rows(path: Path) -> Rows:
    """Return the rows of a file; its first bytes say what it is, not its name."""
    with require_file(path).open("rb") as file:
        head = file.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"PAR1"):
        return _parquet(path)
    if head.startswith(b"["):
        return _list(path)
    if head.startswith(b"{"):
        return Rows(rows=((place, record) for _, place, record in places(path)), total=_num_lines(path))
    _, rows = csv_rows(path)
    where = repr(str(path))
    return Rows(
        rows=((f"{where}, line {line}", row) for line, row in rows),
        total=_num_lines(path),
        header=f"{where}, line 1",
    )


def _parquet(path: Path) -> Rows:
    # pyarrow stays out of `import turnout.datasets`.
    from pyarrow import parquet

    _, rows = wide_rows(path, is_parquet=True)
    return Rows(rows=rows, total=parquet.read_metadata(path).num_rows, header=repr(str(path)))


def _list(path: Path) -> Rows:
    records = json_document(path)
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise TableError(sentence(f"{str(path)!r}, record {index}", allowed="a JSON object", got=record))
    rows = ((f"{str(path)!r}, record {index}", record) for index, record in enumerate(records))
    return Rows(rows=rows, total=len(records))


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
