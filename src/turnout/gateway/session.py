"""This module marks in the ledger which gateway is writing, and finds those that died without a word.

A session is a row that is opened at the start and closed at the end. Its process holds a lock on a file
beside the ledger; the system drops the lock when the process dies, however it dies. An open row whose lock
is free is therefore a crash, and one whose lock is held is another gateway at work.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, final

from turnout.core.errors import sentence


@final
class Session:
    """One gateway's time with a ledger.

    Parameters
    ----------
    path:
        The ledger's file.
    """

    def __init__(self, *, path: Path) -> None:
        self.id = secrets.token_hex(6)
        self.path = path
        self._lock: IO[bytes] | None = None

    def open(self, connection: sqlite3.Connection, *, now_s: float) -> tuple[str, ...]:
        """Mark the session as open; return a sentence for each earlier one that ended without closing."""
        notices = tuple(self._find_dead(connection, now_s))
        self._lock = _try_lock(_lock_path(self.path, self.id))
        connection.execute(
            "INSERT INTO sessions (id, pid, started_s) VALUES (?, ?, ?)", (self.id, os.getpid(), now_s)
        )
        return notices

    def close(self, connection: sqlite3.Connection, *, now_s: float) -> None:
        """Mark the session as closed and give its lock back."""
        connection.execute("UPDATE sessions SET closed_s = ? WHERE id = ?", (now_s, self.id))
        self.release()

    def release(self) -> None:
        """Give the lock back without a mark, which is how a session that could not write ends."""
        if self._lock is not None:
            self._lock.close()
            _lock_path(self.path, self.id).unlink(missing_ok=True)
            self._lock = None

    def _find_dead(self, connection: sqlite3.Connection, now_s: float) -> list[str]:
        open_rows = connection.execute(
            "SELECT id, pid, started_s, last_commit_s FROM sessions "
            "WHERE closed_s IS NULL AND found_open_s IS NULL ORDER BY started_s"
        ).fetchall()
        notices = []
        for session_id, pid, started_s, last_commit_s in open_rows:
            lock_path = _lock_path(self.path, session_id)
            lock = _try_lock(lock_path)
            if lock is None:
                continue
            lock.close()
            lock_path.unlink(missing_ok=True)
            connection.execute("UPDATE sessions SET found_open_s = ? WHERE id = ?", (now_s, session_id))
            lost = _count_lost(connection, session_id)
            last = started_s if last_commit_s is None else last_commit_s
            notices.append(_notice(self.path, pid, last, lost))
        return notices


def at_work(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Return the ids of the sessions of a ledger whose process lives; changes nothing."""
    open_rows = connection.execute(
        "SELECT id FROM sessions WHERE closed_s IS NULL AND found_open_s IS NULL"
    ).fetchall()
    return [session_id for (session_id,) in open_rows if _is_held(_lock_path(path, session_id))]


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    if os.name == "nt":
        return True
    lock = _try_lock(path)
    if lock is not None:
        lock.close()
    return lock is None


def _lock_path(path: Path, session_id: str) -> Path:
    return path.with_name(f"{path.name}-lock-{session_id}")


def _count_lost(connection: sqlite3.Connection, session_id: str) -> int:
    query = "SELECT count(*) FROM requests WHERE session_id = ? AND status IS NULL"
    count: int = connection.execute(query, (session_id,)).fetchone()[0]
    return count


def _notice(path: Path, pid: int, last_s: float, lost: int) -> str:
    when = datetime.fromtimestamp(last_s, UTC).isoformat(timespec="milliseconds")
    return sentence(
        f"the ledger {str(path)!r} was not closed by its last gateway (process {pid}): it wrote last at "
        f"{when}, requests of its last 0.1 s may be missing, and {lost} have a decision but no result",
    )


def _try_lock(path: Path) -> IO[bytes] | None:
    """Return the locked file, or None while another process holds the lock."""
    file = path.open("ab")
    try:
        import fcntl
    except ImportError:
        # Without file locks (Windows) an open session is taken for a crash.
        return file
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    file.close()
    return None
