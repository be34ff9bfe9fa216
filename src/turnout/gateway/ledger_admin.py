"""This module keeps a ledger in order: it exports rows, forgets tenants, and drops what is too old.

All of it works beside a running gateway. What is deleted is overwritten, and the file is made smaller where
nobody else holds it.
"""

from __future__ import annotations

import contextlib
import csv
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from turnout.core.errors import InputError, sentence
from turnout.gateway.central import TABLES
from turnout.gateway.ledger_delete import delete
from turnout.gateway.pins_store import file_beside, forget_pins
from turnout.gateway.schema import DecisionRow, ResultRow, migrate

FORMATS = (".csv", ".parquet")

_BATCH = 10_000
_KINDS: dict[type, str] = {str: "string", float: "float64", int: "int64", bool: "bool_"}


def export(
    ledger: str | Path, out: str | Path, *, since_s: float | None = None, tenant: str | None = None
) -> int:
    """Write one row per request to a `.parquet` or `.csv` file, oldest first; return how many.

    Unknown is null in parquet and empty in CSV. Raises `InputError` for another ending or a file that is no
    ledger.
    """
    path = Path(out)
    if path.suffix not in FORMATS:
        raise InputError(
            sentence(
                "the file to export to", allowed=" or ".join(FORMATS), got=path.name, do="choose its ending"
            )
        )
    kinds = columns()
    query = f"SELECT {', '.join(kinds)} FROM requests WHERE time_s >= ?"
    values: list[Any] = [0.0 if since_s is None else since_s]
    if tenant is not None:
        query, values = f"{query} AND tenant = ?", [*values, tenant]
    with _opened(ledger) as connection:
        batches = _batches(connection, f"{query} ORDER BY time_s, decision_id", values, list(kinds.values()))
        write = _write_csv if path.suffix == ".csv" else _write_parquet
        return write(path, kinds, batches)


def prune(ledger: str | Path, *, before_s: float) -> int:
    """Delete every request that came before a time (seconds since the epoch); return how many."""
    with _opened(ledger) as connection:
        return _tidied(connection, delete(connection, "time_s < ?", before_s))


def forget(ledger: str | Path, tenant: str) -> int:
    """Delete every request of a tenant with all that belongs to it; return how many.

    What waits to be sent to PostgreSQL, and who keeps which of the tenant's responses, goes too.
    """
    with _opened(ledger) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        _unsend(connection, tenant)
        forget_pins(file_beside(Path(ledger)), tenant)
        return _tidied(connection, delete(connection, "tenant = ?", tenant))


def _unsend(connection: sqlite3.Connection, tenant: str) -> None:
    """Take a tenant's rows out of the outbox."""
    whose = "SELECT 1 FROM decisions WHERE decision_id = ? AND tenant = ?"
    for number, kind, body in connection.execute("SELECT number, kind, body FROM outbox").fetchall():
        row = msgspec.msgpack.decode(body, type=TABLES[kind])
        decision_id = getattr(row, "decision_id", None)
        if connection.execute(whose, (decision_id, tenant)).fetchone() is not None:
            connection.execute("DELETE FROM outbox WHERE number = ?", (number,))


def columns() -> dict[str, str]:
    """Return every column of an export with its kind, in the order of the view."""
    kinds: dict[str, str] = {}
    for row in (DecisionRow, ResultRow):
        for name, hint in get_type_hints(row).items():
            kind = next((one for one in (hint, *get_args(hint)) if one in _KINDS), str)
            kinds.setdefault(name, _KINDS[kind])
    return kinds


@contextmanager
def _opened(ledger: str | Path) -> Iterator[sqlite3.Connection]:
    path = Path(ledger)
    if not path.is_file():
        raise _no_ledger(ledger, "no such file")
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as connection:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'decisions'")
            if found.fetchone()[0] == 0:
                raise _no_ledger(ledger, "a file without decisions")
            migrate(connection, now_s=0.0, where=str(path))
            yield connection
    except sqlite3.Error as error:
        raise _no_ledger(ledger, str(error)) from error


def _no_ledger(ledger: str | Path, got: str) -> InputError:
    return InputError(
        sentence(
            f"{str(ledger)!r} cannot be used as a ledger",
            allowed="a SQLite file that a turnout gateway wrote",
            got=got,
            do="check the path",
        )
    )


def _tidied(connection: sqlite3.Connection, count: int) -> int:
    """Give the room back, and return `count`; a gateway that writes just now may prevent it."""
    if count:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count


def _batches(
    connection: sqlite3.Connection, query: str, values: list[Any], kinds: list[str]
) -> Iterator[list[tuple[Any, ...]]]:
    flags = [number for number, kind in enumerate(kinds) if kind == "bool_"]
    cursor = connection.execute(query, values)
    while rows := cursor.fetchmany(_BATCH):
        yield [_with_flags(row, flags) for row in rows]


def _with_flags(row: Sequence[Any], flags: list[int]) -> tuple[Any, ...]:
    """Return a row with true and false where SQLite has 1 and 0."""
    values = list(row)
    for number in flags:
        values[number] = None if values[number] is None else bool(values[number])
    return tuple(values)


def _write_csv(path: Path, kinds: dict[str, str], batches: Iterator[list[tuple[Any, ...]]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(kinds)
        for rows in batches:
            writer.writerows(rows)
            count += len(rows)
    return count


def _write_parquet(path: Path, kinds: dict[str, str], batches: Iterator[list[tuple[Any, ...]]]) -> int:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for rows in batches:
            found = [
                pyarrow.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(found, schema=schema))
            count += len(rows)
    return count
