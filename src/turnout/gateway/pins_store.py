"""This module keeps pins where workers share them and a restart leaves them: a SQLite file beside the ledger.

Only answers that an upstream keeps are written, one short transaction each, on the event loop: some tens of
microseconds. Where the file cannot be used, every process has its own memory, and the log says so. While
another process has locked it, nobody waits: what is noted is written after the lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

from turnout.gateway.turns import Turns

logger = logging.getLogger(__name__)

CAPACITY = 1_000_000
"""Names that a file keeps; the oldest are deleted beyond them."""

_PRUNE_EVERY = 1000
_MAX_WAITING = 10_000
"""Notes that wait for a locked file; further ones are not written, and known to this process alone."""
_CLOSE_S = 1.0

_CONVERSATION = "conversation:"
_ITEM = "item:"
_SEAL = "sha256:"

_TABLE = """
CREATE TABLE IF NOT EXISTS pins (
    id INTEGER PRIMARY KEY, name BLOB UNIQUE, maker TEXT, tenant TEXT, tokens INTEGER NOT NULL DEFAULT 0
)
"""
_ADD_TOKENS = "ALTER TABLE pins ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0"
_NOTE = "INSERT OR REPLACE INTO pins (name, maker, tenant, tokens) VALUES (?, ?, ?, ?)"
_PRUNE = "DELETE FROM pins WHERE id <= (SELECT max(id) FROM pins) - ?"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Who made something, and for whom."""

    maker: str
    """Name of the candidate."""
    tenant: str = ""
    """Whose key asked; empty where nobody needs a key."""
    tokens: int = 0
    """Tokens that a model reads for who goes on from it, as the upstream counted them; 0 for unknown."""


def conversation_name(conversation_id: str) -> str:
    """Return the name of a conversation among pins: no response's id can be taken for one."""
    return _CONVERSATION + conversation_id


def conversation_in(name: str) -> str | None:
    """Return the id of the conversation that a name stands for; None where it is another thing's."""
    return name.removeprefix(_CONVERSATION) if name.startswith(_CONVERSATION) else None


def item_name(item_id: str) -> str:
    """Return the name of an item among pins, which a request can refer to in place of sending it."""
    return _ITEM + item_id


def is_part(name: str) -> bool:
    """Whether a name stands for a part of an answer, and not for all that was said up to its end."""
    return name.startswith((_ITEM, _SEAL))


def seal(encrypted: str) -> str:
    """Return the name of encrypted reasoning among pins, which is short."""
    return _SEAL + hashlib.sha256(encrypted.encode()).hexdigest()


def is_seal(name: str) -> bool:
    """Whether a name stands for encrypted reasoning."""
    return name.startswith(_SEAL)


class PinStore(ABC):
    """Keeps pins for other processes; a failure is logged and means that they do not know."""

    @abstractmethod
    async def note(self, digests: Sequence[bytes], pin: Pin, *, lasts: bool = False) -> None:
        """Keep who made what; what lasts has no end of its own, as conversations have none upstream."""

    @abstractmethod
    async def find(self, digest: bytes) -> Pin | None:
        """Return who made it, or None."""

    @abstractmethod
    async def close(self) -> None:
        """Close what is open."""


@final
class SqlitePins(PinStore):
    """The pins of one machine.

    Parameters
    ----------
    path:
        The file; made where it is missing.
    """

    def __init__(self, *, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._num_notes = 0
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=1.0
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A pin that a power cut takes is no more than forgotten.
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.execute(_TABLE)
            if "tokens" not in [row[1] for row in self._connection.execute("PRAGMA table_info(pins)")]:
                # Workers open the file one after the other; an older gateway made it.
                self._connection.execute(_ADD_TOKENS)
            self._turns = Turns(self._connection, what=f"the file of pins {str(path)!r}")
        except sqlite3.Error as error:
            self._give_up(error)

    async def note(self, digests: Sequence[bytes], pin: Pin, *, lasts: bool = False) -> None:
        """Keep who made what, until a million others were noted since."""
        if self._connection is None or self._turns.num_waiting >= _MAX_WAITING:
            return
        rows = [(digest, pin.maker, pin.tenant, pin.tokens) for digest in digests]
        self._turns.later(lambda: self._write(rows))

    def _write(self, rows: list[tuple[bytes, str, str, int]]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.executemany(_NOTE, rows)
            self._num_notes += 1
            if self._num_notes % _PRUNE_EVERY == 0:
                self._connection.execute(_PRUNE, (CAPACITY,))
        except sqlite3.Error as error:
            if _is_locked(error):
                raise
            self._give_up(error)

    async def find(self, digest: bytes) -> Pin | None:
        """Return who made it, or None."""
        if self._connection is None:
            return None
        try:
            found = self._connection.execute(
                "SELECT maker, tenant, tokens FROM pins WHERE name = ?", (digest,)
            ).fetchone()
        except sqlite3.Error as error:
            if not _is_locked(error):
                self._give_up(error)
            return None
        return None if found is None else Pin(maker=found[0], tenant=found[1], tokens=found[2])

    async def close(self) -> None:
        """Write what waits, unless the file stays locked, and close it."""
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._turns.finish()
        except TimeoutError:
            pass  # A pin that is not written is no more than forgotten.
        self._connection.close()
        self._connection = None

    def _give_up(self, error: sqlite3.Error) -> None:
        logger.warning(
            "who keeps which response is remembered by this process alone: %s: %s", self.path, error
        )
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_locked(error: sqlite3.Error) -> bool:
    """Whether another process has the file for itself, and the same may be tried again."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def forget_pins(path: Path, tenant: str) -> None:
    """Delete what was made for a tenant from a file, if there is one; raises `sqlite3.Error`."""
    if not path.is_file():
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("DELETE FROM pins WHERE tenant = ?", (tenant,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def file_beside(ledger: Path) -> Path:
    """Return the file of pins that belongs to a ledger."""
    return ledger.with_name(ledger.stem + ".pins.sqlite")
