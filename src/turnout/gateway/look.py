"""This module opens the ledger for reading: without a disturbance, and all of a look see one state.

Where hosts share a PostgreSQL the rows of all of them are read there, and those of this host alone while
it is away. One SQL serves both: `{requests}` and its like stand for what the two call differently.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, final
from urllib.parse import quote

from turnout.gateway.central import Sender, connect, sessions_at_work
from turnout.gateway.ledger_check import unreadable
from turnout.gateway.session import at_work

logger = logging.getLogger(__name__)

Found = TypeVar("Found")
Whose = Literal["this host", "all hosts"]

_HOLE = re.compile(r":(\w+)")
_TABLES = ("requests", "decisions", "feedback", "traces", "shadows", "switches")
_OWN = {
    **{f"{{{table}}}": table for table in _TABLES},
    "{floor}": "",
    "{served_usd}": "json_extract(scores, '$.\"' || served || '\"[1]')",
    "{single_usd}": "json_extract(scores, '$.\"' || :single || '\"[1]')",
}
_CENTRAL = {
    **{f"{{{table}}}": f"turnout_{table}" for table in _TABLES},
    "{floor}": "floor",
    "{served_usd}": "CAST(CAST(scores AS json) -> served ->> 1 AS double precision)",
    "{single_usd}": "CAST(CAST(scores AS json) -> CAST(:single AS text) ->> 1 AS double precision)",
}


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


@final
class Look:
    """One state of a ledger.

    Parameters
    ----------
    connection:
        To a gateway's SQLite file, or to the PostgreSQL of many.
    whose:
        Whose rows it holds.
    at_work:
        Ids of the sessions whose gateway is at work: a decision of another that has no result was lost.
    """

    def __init__(self, connection: Any, *, whose: Whose, at_work: Sequence[str]) -> None:
        self.whose: Whose = whose
        self._connection = connection
        self._is_central = whose == "all hosts"
        self._at_work = {f"session_{number}": session for number, session in enumerate(at_work)}
        names = ", ".join(f":{name}" for name in self._at_work) or "NULL"
        self._words = {
            **(_CENTRAL if self._is_central else _OWN),
            "{running}": f"(status IS NULL AND session_id IN ({names}))",
            "{lost}": f"(status IS NULL AND (session_id IN ({names})) IS NOT TRUE)",
        }

    def rows(self, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a query, each by the names of its columns."""
        found = self._execute(query, values)
        names = [column[0] for column in found.description]
        return [dict(zip(names, map(_plain, row), strict=True)) for row in found]

    def tuples(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query as they are."""
        found: list[tuple[Any, ...]] = self._execute(query, values).fetchall()
        return found

    def first_s(self) -> float | None:
        """Return the time of the first decision; None where there is none."""
        found: float | None = self.tuples("SELECT min(time_s) FROM {decisions}", {})[0][0]
        return found

    def _execute(self, query: str, values: dict[str, Any]) -> Any:
        for word, meaning in self._words.items():
            query = query.replace(word, meaning)
        told = {**values, **self._at_work}
        if self._is_central:
            query = _HOLE.sub(r"%(\1)s", query.replace("%", "%%"))
        return self._connection.execute(query, told)


def look_at(path: Path, url: str | None, ask: Callable[[Look], Found]) -> Found:
    """Return what is asked of the rows of all hosts, or of this one's where there are no others.

    `url` is the PostgreSQL of all hosts, None where they share none or it is known to be away. Raises
    `sqlite3.Error` where a gateway's own file cannot be read.
    """
    if url is not None:
        import psycopg

        # No gateway of this version may have made its tables yet.
        absent = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
        try:
            with connect(url) as connection:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return ask(Look(connection, whose="all hosts", at_work=sessions_at_work(connection)))
        except (psycopg.OperationalError, *absent) as error:
            logger.warning("only this host's rows are read, since PostgreSQL has none to give: %s", error)
    return look_at_file(path, ask)


def read_ledger(path: Path, url: str | None, ask: Callable[[Look], Found]) -> Found:
    """Do as `look_at` does; raises `InputError` for what is no ledger."""
    try:
        return look_at(path, url, ask)
    except sqlite3.Error as error:
        raise unreadable(path, error) from error


def url_of(sender: Sender | None) -> str | None:
    """Return where the rows of all hosts are, as far as a gateway knows."""
    return None if sender is None or sender.failure is not None else sender.url


def look_at_file(path: Path, ask: Callable[[Look], Found]) -> Found:
    """Return what is asked of one gateway's own file; raises `sqlite3.Error` where it cannot be read."""
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        return ask(Look(connection, whose="this host", at_work=at_work(connection, path)))


def _plain(value: Any) -> Any:
    """Return a number as JSON has it: PostgreSQL's sums of whole numbers are decimals."""
    return int(value) if isinstance(value, Decimal) else value
