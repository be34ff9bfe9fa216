"""This module opens the file of keys and of what they spend: SQLite, shared by the workers of one machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from turnout.core.errors import ConfigError, sentence

VERSION = 1
"""Version of the tables that this code writes (`PRAGMA user_version`)."""

_TABLES = """
CREATE TABLE keys (
    name TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, hint TEXT NOT NULL, settings BLOB NOT NULL,
    created_s REAL NOT NULL, expires_s REAL, revoked_s REAL
) WITHOUT ROWID;
CREATE TABLE spend (
    key TEXT NOT NULL, period TEXT NOT NULL, spent_usd REAL NOT NULL, held_usd REAL NOT NULL,
    PRIMARY KEY (key, period)
) WITHOUT ROWID;
CREATE TABLE buckets (
    key TEXT NOT NULL, kind TEXT NOT NULL, level REAL NOT NULL, time_s REAL NOT NULL, PRIMARY KEY (key, kind)
) WITHOUT ROWID
"""


def open_keyfile(path: str | Path) -> sqlite3.Connection:
    """Open the file, made if missing, in autocommit mode; raises `ConfigError` where it is no such file."""
    where = Path(path)
    connection: sqlite3.Connection | None = None
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        # Hashes and spend are nobody else's business.
        where.touch(mode=0o600)
        connection = sqlite3.connect(where, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        _make_tables(connection, where)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise ConfigError(
            sentence(
                f"the file of keys {str(where)!r} cannot be used",
                allowed="a SQLite file that turnout made, or a new one in a folder one may write to",
                got=str(error),
                do="choose another auth.path",
            )
        ) from error
    except ConfigError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection, where: Path) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return  # A reload need not wait for whoever writes.
    connection.execute("BEGIN IMMEDIATE")
    try:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise ConfigError(
                sentence(
                    f"the file of keys {str(where)!r} was written by a newer turnout",
                    allowed=f"version up to {VERSION}",
                    got=found,
                    do="upgrade turnout, or name another auth.path",
                )
            )
        if found == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
