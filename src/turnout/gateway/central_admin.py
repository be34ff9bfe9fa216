"""This module keeps the rows of many gateways in order: it copies them into a ledger's file, and deletes.

A copy is a ledger like any other, so that whatever reads one (outcome tables, what-if, exports) reads
the rows of all hosts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.core.errors import InputError, sentence
from turnout.gateway.central import NAMELESS, TABLES, connect
from turnout.gateway.ledger_check import check_ledger
from turnout.gateway.schema import insert_statement, migrate

if TYPE_CHECKING:
    import psycopg

_BATCH = 5_000
_LATER = tuple(table for table in TABLES if table not in ("decisions", "switches"))
"""Tables whose rows belong to a decision."""


def pull(url: str, out: str | Path, *, since_s: float | None = None) -> int:
    """Copy the requests since a time into a ledger's file, made if missing; return how many were new.

    What the file has already stays, and results and scores that came since are added. Raises `InputError` for
    a file that a gateway writes, and for a PostgreSQL that cannot be read; `ConfigError` for no ledger.
    """
    path, since = Path(out), 0.0 if since_s is None else since_s
    check_ledger(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _reading(url) as central, closing(sqlite3.connect(path, isolation_level=None)) as ledger:
        migrate(ledger, now_s=0.0, where=str(path))
        _check_copy(ledger, path)
        ledger.execute("BEGIN IMMEDIATE")
        try:
            before = _count(ledger)
            _copy(central, ledger, "decisions", "time_s >= %s", since)
            ids = "decision_id IN (SELECT decision_id FROM turnout_decisions WHERE time_s >= %s)"
            # Scores have no name of their own; what is there of these requests is read anew.
            ledger.execute(
                "DELETE FROM feedback WHERE decision_id IN "
                "(SELECT decision_id FROM decisions WHERE time_s >= ?)",
                (since,),
            )
            for table in _LATER:
                _copy(central, ledger, table, ids, since)
            ledger.execute("DELETE FROM switches WHERE time_s >= ?", (since,))
            _copy(central, ledger, "switches", "time_s >= %s", since)
            added = _count(ledger) - before
        except BaseException:
            ledger.execute("ROLLBACK")
            raise
        ledger.execute("COMMIT")
    return added


def forget(url: str, tenant: str) -> int:
    """Delete every request of a tenant, with all that belongs to it; return how many."""
    return _delete(url, "tenant = %s", tenant)


def prune(url: str, *, before_s: float) -> int:
    """Delete every request that came before a time (seconds since the epoch); return how many."""
    return _delete(url, "time_s < %s", before_s)


def _delete(url: str, where: str, value: float | str) -> int:
    with _reading(url) as central, central.transaction():
        for table in _LATER:
            ids = f"SELECT decision_id FROM turnout_decisions WHERE {where}"
            central.execute(f"DELETE FROM turnout_{table} WHERE decision_id IN ({ids})", (value,))
        return central.execute(f"DELETE FROM turnout_decisions WHERE {where}", (value,)).rowcount


@contextmanager
def _reading(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection to a PostgreSQL that has the tables; raises `InputError`."""
    import psycopg

    try:
        with connect(url) as connection:
            yield connection
    except psycopg.errors.UndefinedTable as error:
        what = "the PostgreSQL has no rows of gateways"
        allowed, do = "one that a gateway names as shared.postgres", "check the URL"
        raise InputError(sentence(what, allowed=allowed, got="no table turnout_decisions", do=do)) from error
    except psycopg.Error as error:
        what, allowed = "the PostgreSQL cannot be used", "a server that answers"
        got, do = str(error).strip(), "check the URL and the server"
        raise InputError(sentence(what, allowed=allowed, got=got, do=do)) from error


def _copy(
    central: psycopg.Connection[Any], ledger: sqlite3.Connection, table: str, where: str, since: float
) -> None:
    row = TABLES[table]
    insert = insert_statement(row, table).replace("INSERT INTO", "INSERT OR IGNORE INTO", 1)
    order = {"decisions": "time_s, decision_id"}.get(table, "decision_id")
    order = "time_s, origin" if table in NAMELESS else order
    query = f"SELECT {', '.join(row.__struct_fields__)} FROM turnout_{table} WHERE {where} ORDER BY {order}"
    # A cursor of the server's: a month of rows does not have to fit into memory.
    with central.transaction(), central.cursor(name="turnout_pull") as cursor:
        cursor.execute(query, (since,))
        while rows := cursor.fetchmany(_BATCH):
            ledger.executemany(insert, rows)


def _count(ledger: sqlite3.Connection) -> int:
    count: int = ledger.execute("SELECT count(*) FROM decisions").fetchone()[0]
    return count


def _check_copy(ledger: sqlite3.Connection, path: Path) -> None:
    if ledger.execute("SELECT 1 FROM sessions LIMIT 1").fetchone() is not None:
        raise InputError(
            sentence(
                f"{str(path)!r} is the ledger of a gateway",
                allowed="a file that only `turnout ledger pull` writes to, or a new one",
                do="name another file",
            )
        )
