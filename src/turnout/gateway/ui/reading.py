"""This module opens the ledger for reading: without a disturbance, and all of a look see one state."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import quote


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """From when to when; seconds since the epoch, the end left out."""

    since_s: float
    until_s: float

    @property
    def bounds(self) -> dict[str, float]:
        """What the queries take."""
        return {"since": self.since_s, "until": self.until_s}


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection inside one transaction; raises `sqlite3.Error`."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def rows_of(connection: sqlite3.Connection, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a query, each by the names of its columns."""
    return [dict(row) for row in connection.execute(query, values)]


def first_s(connection: sqlite3.Connection) -> float | None:
    """Return the time of the first decision; None where there is none."""
    found: float | None = connection.execute("SELECT min(time_s) FROM decisions").fetchone()[0]
    return found
