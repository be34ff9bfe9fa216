"""This module remembers every request: rows are queued by the event loop and written by one thread.

The thread commits when a row has waited `flush_ms` or `flush_rows` are queued. SQLite is in WAL mode with
`synchronous=NORMAL`: what is committed survives the death of the process at any moment.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import final
from urllib.parse import quote

import msgspec

from turnout.core.clock import Clock, SystemClock
from turnout.core.errors import ConfigError, sentence
from turnout.gateway.central import NOTE, Sender, outbox_row
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger_check import identity, unusable
from turnout.gateway.ledger_delete import delete
from turnout.gateway.schema import (
    DecisionRow,
    FeedbackRow,
    ResultRow,
    ShadowRow,
    TraceRow,
    insert_statement,
    migrate,
)
from turnout.gateway.session import Session

logger = logging.getLogger(__name__)

_PRUNE_EVERY_S = 3600.0
_DAY_S = 86_400.0

Row = DecisionRow | ResultRow | TraceRow | ShadowRow | FeedbackRow

_TABLES: dict[type[msgspec.Struct], str] = {
    DecisionRow: "decisions",
    ResultRow: "results",
    TraceRow: "traces",
    ShadowRow: "shadows",
    FeedbackRow: "feedback",
}
_PAGE_BYTES = 8192
_AT_ONCE = (128, 16)
"""Rows of one statement, as many as there are first: each statement takes Python's lock once, and the event
loop needs it. The larger one is for an SQLite that takes more than 999 values in each, as it does by default
from 3.32 on; no row has more than 31."""

_UNWRITABLE = (OverflowError, ValueError)
"""What is wrong with a row and not with the disk: trying again would hold up all rows after it."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Whose request a decision was."""

    tenant: str | None
    """As the client's key said; None where nobody needs a key."""


@final
class Ledger:
    """The append-only memory of one gateway.

    Parameters
    ----------
    settings:
        File and flush limits.
    clock:
        What time it is.
    """

    def __init__(self, *, settings: LedgerSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.path = Path(settings.path)
        self.clock = SystemClock() if clock is None else clock
        self.session = Session(path=self.path)
        self._rows: deque[Row] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        self._failure: str | None = None
        self._next_prune_s = 0.0
        self._num_noted = 0
        self.sender: Sender | None = None
        """Who sends every row on, where hosts share a PostgreSQL."""
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def session_id(self) -> str:
        """Names the session in every decision row."""
        return self.session.id

    @property
    def is_full(self) -> bool:
        """Whether so many rows wait for the disk that no further request may be taken."""
        return len(self._rows) >= self.settings.max_pending

    @property
    def num_pending(self) -> int:
        """How many rows wait for the disk."""
        return len(self._rows)

    @property
    def failure(self) -> str | None:
        """What the disk said when the last write failed; None while writing works."""
        return self._failure

    def open(self) -> tuple[str, ...]:
        """Open the file and start the thread; return sentences about earlier sessions that crashed.

        Raises `ConfigError` where the file cannot be a ledger.
        """
        now_s = self.clock.now_s()
        self.session = Session(path=self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
            migrate(self._connection, now_s=now_s, where=str(self.path))
            notices = self.session.open(self._connection, now_s=now_s)
            self._identity = identity(self.path)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise unusable(self.path, error) from error
        except ConfigError:
            self._drop()
            raise
        self._is_stopping = False
        if self.sender is not None:
            self.sender.session_id = self.session.id
            try:
                self.sender.start()
            except BaseException:
                self._drop()
                raise
        self._thread = threading.Thread(target=self._run, name="turnout-ledger", daemon=True)
        self._thread.start()
        return notices

    def add(self, row: Row) -> None:
        """Queue a row; never waits. It is committed within `flush_ms` while the disk works."""
        self._rows.append(row)
        if len(self._rows) >= self.settings.flush_rows and not self._wake.is_set():
            self._wake.set()

    def owner(self, decision_id: str) -> Owner | None:
        """Return whose request a decision was, or None where there is none of that id; reads the file."""
        for row in tuple(self._rows):
            if isinstance(row, DecisionRow) and row.decision_id == decision_id:
                return Owner(tenant=row.tenant)
        connection = sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True)
        try:
            query = "SELECT tenant FROM decisions WHERE decision_id = ?"
            found = connection.execute(query, (decision_id,)).fetchone()
        finally:
            connection.close()
        return None if found is None else Owner(tenant=found[0])

    def close(self) -> None:
        """Write what is queued, mark the session as closed, close the file. Safe to call twice."""
        if self._thread is not None:
            self._is_stopping = True
            self._wake.set()
            self._thread.join()
            self._thread = None
        if self.sender is not None:
            self.sender.close()
        if self._connection is not None:
            if self._rows:
                logger.error("the ledger lost %d rows: %s", len(self._rows), self._failure)
            else:
                self.session.close(self._connection, now_s=self.clock.now_s())
            self._drop()

    def _drop(self) -> None:
        self.session.release()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self) -> None:
        """Flush until told to stop, and once more after that."""
        while not self._is_stopping:
            self._wake.wait(self.settings.flush_ms / 1000)
            self._wake.clear()
            self._flush()
            if self.clock.monotonic_s() >= self._next_prune_s:
                self._prune()
        self._flush()

    def _prune(self) -> None:
        """Delete what is older than it may be; between small steps, rows are written on time."""
        self._next_prune_s = self.clock.monotonic_s() + _PRUNE_EVERY_S
        if self.settings.keep_days is None or self._connection is None:
            return
        before_s = self.clock.now_s() - self.settings.keep_days * _DAY_S
        try:
            count = delete(self._connection, "time_s < ?", before_s, after_each=self._flush)
        except sqlite3.Error as error:
            logger.error("old rows of the ledger cannot be deleted: %s", error)
            return
        if count:
            logger.info("%d requests older than %g days were deleted", count, self.settings.keep_days)

    def _flush(self) -> None:
        """Commit what is queued now; on failure keep it for the next time."""
        count = len(self._rows)
        if count == 0 or self._connection is None:
            return
        try:
            self._write_all(self._connection, list(islice(self._rows, count)))
        except Exception as error:  # noqa: BLE001 (the edge: this thread must not end, and health says why)
            if self._failure is None:
                logger.error("the ledger cannot be written and keeps its rows in memory: %s", error)
            self._failure = str(error)
            return
        for _ in range(count):
            self._rows.popleft()
        self._look()

    def _look(self) -> None:
        """Say so where rows are written to a file that is no longer at its path; nothing else would."""
        here = identity(self.path)
        if here == self._identity:
            self._failure = None
            return
        moved = sentence(
            f"the ledger {str(self.path)!r} was moved or deleted while it is written to",
            allowed="the file that was there when the gateway started",
            got="no file" if here is None else "another file",
            do="put it back, or restart the gateway",
        )
        if self._failure != moved:
            logger.error(moved)
        self._failure = moved

    def _note(self, row: Row) -> tuple[str, str, bytes]:
        """Return a row's entry in the outbox; its origin is its own and that of no other row."""
        self._num_noted += 1
        return f"{self.session.id}-{self._num_noted}", *outbox_row(row)

    def _write_all(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        """Write the rows in one step; where one of them can never be written, the others one by one."""
        try:
            self._write(connection, rows)
        except _UNWRITABLE as error:
            if len(rows) > 1:
                for row in rows:
                    self._write_all(connection, [row])
                return
            kind, whose = type(rows[0]).__name__, rows[0].decision_id
            logger.error("a row cannot be written, and is lost: %s of decision %s: %s", kind, whose, error)

    def _write(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for kind in _TABLES:
                values = [msgspec.structs.astuple(row) for row in rows if type(row) is kind]
                if values:
                    _insert(connection, kind, values)
            if self.sender is not None:
                connection.executemany(NOTE, [self._note(row) for row in rows])
            now_s = self.clock.now_s()
            connection.execute("UPDATE sessions SET last_commit_s = ? WHERE id = ?", (now_s, self.session.id))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _insert(
    connection: sqlite3.Connection, kind: type[msgspec.Struct], values: list[tuple[object, ...]]
) -> None:
    """Write rows of one kind, by statements of many as far as there are many."""
    names, values = _said(kind.__struct_fields__, values)
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    at, table = 0, _TABLES[kind]
    for num_rows in _AT_ONCE:
        if num_rows * len(names) > most:
            continue
        while len(values) - at >= num_rows:
            some = list(chain.from_iterable(values[at : at + num_rows]))
            connection.execute(insert_statement(kind, table, num_rows, names), some)
            at += num_rows
    if at < len(values):
        connection.executemany(insert_statement(kind, table, 1, names), values[at:])


def _said(
    names: tuple[str, ...], values: list[tuple[object, ...]]
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return names and values without the columns that no row says anything of, and truths as numbers.

    SQLite writes the same; but for each null and each truth Python looks for somebody who adapts it, which
    takes ten times as long as to hand over a number.
    """
    said, columns = list[str](), list[Iterable[object]]()
    for name, column in zip(names, zip(*values, strict=True), strict=True):
        if column[0] is None and column.count(None) == len(column):
            continue
        said.append(name)
        columns.append(map(int, column) if type(column[0]) is bool else column)
    return tuple(said), list(zip(*columns, strict=True))


def _connect(path: Path) -> sqlite3.Connection:
    """Open in autocommit mode: every transaction is written out where it is."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        # Of a new file. By SQLite's own size, a decision among twenty candidates has a page beside its row.
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection
