"""This module brings the rows of many gateways together in PostgreSQL, each once.

Every gateway keeps its own SQLite file, and what is committed there is safe. With `shared.postgres` the same
transaction notes each row in the table `outbox`; a thread of its own sends them on in their order, and takes
a note away when PostgreSQL has committed the row. A PostgreSQL that is away delays rows and loses none, and
no request waits for it. A row that is sent twice, because an answer was lost, is the same row.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, get_args, get_type_hints

import msgspec

from turnout.core.errors import ConfigError, missing_extra, sentence
from turnout.gateway.schema import DecisionRow, FeedbackRow, ResultRow, ShadowRow, SwitchRow, TraceRow

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

TABLES: dict[str, type[msgspec.Struct]] = {
    "decisions": DecisionRow,
    "results": ResultRow,
    "traces": TraceRow,
    "shadows": ShadowRow,
    "feedback": FeedbackRow,
    "switches": SwitchRow,
}
"""Table -> the row that it holds; in PostgreSQL it is called `turnout_TABLE`."""
Note = tuple[int, str, str, bytes]
"""Number, origin, table and body of a row in the outbox."""
NAMELESS = ("feedback", "switches")
"""Tables whose rows have no name of their own; in PostgreSQL it is their place in a gateway's outbox."""

NOTE = "INSERT INTO outbox (origin, kind, body) VALUES (?, ?, ?)"
"""Puts a row into the outbox, beside the row itself and in the same transaction."""

_BATCH = 500
_PERIOD_S = 0.25
_SIGN_EVERY_S = 15.0
_SILENT_S = 60.0
"""A gateway that gave no sign of life for so long is at work no more."""
_KEEP_SESSIONS_S = 86_400.0
_NOW_S = "extract(epoch FROM clock_timestamp())"
"""PostgreSQL's own clock tells when a session was seen: those of the hosts differ."""
_LONGEST_WAIT_S = 5.0
_CONNECT_S = 5
_LOCK = 7_402_872
_KINDS: dict[type, str] = {
    str: "TEXT",
    float: "DOUBLE PRECISION",
    int: "BIGINT",
    bool: "BOOLEAN",
}


def outbox_row(row: msgspec.Struct) -> tuple[str, bytes]:
    """Return what the outbox keeps of a row: its table, and itself."""
    table = next(name for name, kind in TABLES.items() if type(row) is kind)
    return table, msgspec.msgpack.encode(row)


def make_tables(connection: psycopg.Connection[Any]) -> None:
    """Make the tables, and add the columns that a newer turnout has; safe where several do it at once."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        for table, row in TABLES.items():
            key = "origin" if table in NAMELESS else "decision_id"
            connection.execute(f"CREATE TABLE IF NOT EXISTS turnout_{table} ({key} TEXT PRIMARY KEY)")
            for name, kind in _columns(row).items():
                connection.execute(f"ALTER TABLE turnout_{table} ADD COLUMN IF NOT EXISTS {name} {kind}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS turnout_sessions "
            "(id TEXT PRIMARY KEY, seen_s DOUBLE PRECISION NOT NULL, ended_s DOUBLE PRECISION)"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS turnout_by_time ON turnout_decisions (time_s)")
        connection.execute("CREATE INDEX IF NOT EXISTS turnout_by_tenant ON turnout_decisions (tenant)")
        connection.execute("DROP VIEW IF EXISTS turnout_requests")
        ended = ", ".join(name for name in _columns(ResultRow) if name != "decision_id")
        connection.execute(
            f"CREATE VIEW turnout_requests AS SELECT d.*, {ended} FROM turnout_decisions d "
            "LEFT JOIN turnout_results r ON r.decision_id = d.decision_id"
        )


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect in autocommit mode; raises what psycopg does, or `MissingExtraError`."""
    try:
        import psycopg
    except ImportError as error:
        raise missing_extra("psycopg", feature="shared.postgres", extra="scale") from error
    return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_S, client_encoding="utf8")


@final
class Sender:
    """Sends the outbox of one ledger.

    Parameters
    ----------
    url:
        The PostgreSQL.
    path:
        The ledger's file.
    """

    def __init__(self, *, url: str, path: Path) -> None:
        self.url = url
        self.path = path
        self.session_id = ""
        """Names the gateway's session to the others."""
        self.failure: str | None = None
        """What PostgreSQL said when the last sending failed; None while sending works."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_sign_s = 0.0

    def start(self) -> None:
        """Make the tables and start the thread; raises `ConfigError` where PostgreSQL refuses."""
        import psycopg

        try:
            with connect(self.url) as connection, closing(sqlite3.connect(self.path)) as ledger:
                make_tables(connection)
                _tell_ended(ledger, connection)
                _tell_session(connection, self.session_id, has_ended=False)
        except psycopg.Error as error:
            raise ConfigError(
                sentence(
                    "the PostgreSQL of 'shared.postgres' cannot be used",
                    allowed="a server that takes the connection and lets it make tables",
                    got=str(error).strip(),
                    do="check the URL, the server and the rights",
                )
            ) from error
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="turnout-sender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is there, once, and stop; what cannot be sent now is sent after the next start."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        wait_s = _PERIOD_S
        while not self._stop.wait(wait_s):
            wait_s = _PERIOD_S if self._send_all() else min(2 * wait_s, _LONGEST_WAIT_S)
        self._send_all(has_ended=True)

    def _send_all(self, *, has_ended: bool = False) -> bool:
        """Send until the outbox is empty; return whether all went well."""
        import psycopg

        is_due = has_ended or time.monotonic() >= self._next_sign_s
        try:
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=5.0)) as ledger:
                if is_due or ledger.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is not None:
                    with connect(self.url) as connection:
                        while self._send_some(ledger, connection):
                            pass
                        if is_due:
                            _tell_session(connection, self.session_id, has_ended=has_ended)
                            self._next_sign_s = time.monotonic() + _SIGN_EVERY_S
        except (psycopg.Error, sqlite3.Error, OSError) as error:
            if self.failure is None:
                logger.error("rows wait in the ledger's outbox, as PostgreSQL is away: %s", error)
            self.failure = str(error)
            return False
        self.failure = None
        return True

    def _send_some(self, ledger: sqlite3.Connection, connection: psycopg.Connection[Any]) -> bool:
        """Send the oldest rows and take their notes away; return whether there were any."""
        notes = ledger.execute(
            "SELECT number, origin, kind, body FROM outbox ORDER BY number LIMIT ?", (_BATCH,)
        ).fetchall()
        if not notes:
            return False
        _store(connection, notes)
        ledger.execute("DELETE FROM outbox WHERE number <= ?", (notes[-1][0],))
        return True


def sessions_at_work(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the ids of the sessions whose gateway gave a sign of life lately."""
    query = f"SELECT id FROM turnout_sessions WHERE ended_s IS NULL AND seen_s > {_NOW_S} - %s"
    return [session_id for (session_id,) in connection.execute(query, (_SILENT_S,))]


def _tell_session(connection: psycopg.Connection[Any], session_id: str, *, has_ended: bool) -> None:
    """Say that a session is at work, or that it is over."""
    ended = _NOW_S if has_ended else "NULL"
    connection.execute(
        f"INSERT INTO turnout_sessions VALUES (%s, {_NOW_S}, {ended}) "
        "ON CONFLICT (id) DO UPDATE SET seen_s = excluded.seen_s, ended_s = excluded.ended_s",
        (session_id,),
    )


def _tell_ended(ledger: sqlite3.Connection, connection: psycopg.Connection[Any]) -> None:
    """Say which sessions of a ledger are over, crashed ones too, and forget those of long ago."""
    query = "SELECT id FROM sessions WHERE closed_s IS NOT NULL OR found_open_s IS NOT NULL"
    ids = [session_id for (session_id,) in ledger.execute(query)]
    over = f"UPDATE turnout_sessions SET ended_s = {_NOW_S} WHERE ended_s IS NULL AND id = ANY(%s)"
    connection.execute(over, (ids,))
    old = f"DELETE FROM turnout_sessions WHERE seen_s < {_NOW_S} - %s"
    connection.execute(old, (_KEEP_SESSIONS_S,))


def _store(connection: psycopg.Connection[Any], notes: Sequence[Note]) -> None:
    """Write rows in one step; where one of them can never be written, the others one by one."""
    import psycopg

    try:
        with connection.transaction(), connection.cursor() as cursor:
            for table, row in TABLES.items():
                values = [
                    _values(table, row, origin, body) for _, origin, kind, body in notes if kind == table
                ]
                if values:
                    cursor.executemany(_insert(table, row), values)
    except psycopg.DataError as error:
        if len(notes) > 1:
            for note in notes:
                _store(connection, [note])
            return
        logger.error("PostgreSQL cannot take a row, and it stays in the gateway's own file: %s", error)


def _values(table: str, row: type[msgspec.Struct], origin: str, body: bytes) -> Sequence[Any]:
    # PostgreSQL's texts cannot hold the sign NUL, and what clients name may.
    decoded = msgspec.structs.astuple(msgspec.msgpack.decode(body, type=row))
    values = tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in decoded)
    return (origin, *values) if table in NAMELESS else values


def _insert(table: str, row: type[msgspec.Struct]) -> str:
    names = [*(("origin",) if table in NAMELESS else ()), *row.__struct_fields__]
    holes = ", ".join(["%s"] * len(names))
    return f"INSERT INTO turnout_{table} ({', '.join(names)}) VALUES ({holes}) ON CONFLICT DO NOTHING"


def _columns(row: type[msgspec.Struct]) -> dict[str, str]:
    """Return the columns of a row with their types in PostgreSQL."""
    columns = {}
    for name, hint in get_type_hints(row).items():
        kind = next((one for one in (hint, *get_args(hint)) if one in _KINDS), str)
        columns[name] = _KINDS[kind]
    return columns
