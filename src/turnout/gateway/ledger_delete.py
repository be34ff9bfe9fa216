"""This module deletes requests from a ledger, with all that belongs to them, in small steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

_BATCH = 2000
_TABLES = ("results", "traces", "shadows", "feedback", "decisions")


def delete(
    connection: sqlite3.Connection,
    where: str,
    value: float | str,
    *,
    after_each: Callable[[], None] | None = None,
) -> int:
    """Delete the requests of a condition and return how many; what is deleted is overwritten.

    A step takes some milliseconds, so a gateway that writes to the same file never waits long; `after_each`
    is called between the steps.
    """
    connection.execute("PRAGMA secure_delete=ON")
    total = 0
    while True:
        query = f"SELECT decision_id FROM decisions WHERE {where} LIMIT {_BATCH}"
        ids = connection.execute(query, (value,)).fetchall()
        if not ids:
            return total
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table in _TABLES:
                connection.executemany(f"DELETE FROM {table} WHERE decision_id = ?", ids)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        total += len(ids)
        if after_each is not None:
            after_each()
