"""This module looks at the file of a ledger from outside: can it be one, and is it still where it was?"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from turnout.core.errors import ConfigError, InputError, sentence
from turnout.gateway.schema import check_version


def check_ledger(path: Path) -> None:
    """Raise `ConfigError` where no ledger could be opened at a path; makes nothing and changes nothing."""
    try:
        if path.exists():
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as found:
                check_version(found, where=str(path))
        folder = next(one for one in path.absolute().parents if one.exists())
        for one in (folder, path):
            if one.exists() and not os.access(one, os.W_OK):
                raise PermissionError(f"nobody may write to {str(one)!r}")
        if not folder.is_dir():
            raise NotADirectoryError(f"{str(folder)!r} is no folder")
        # Rights do not say whether a folder takes files: root may write to /proc, and cannot.
        tempfile.TemporaryFile(dir=folder).close()
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error of what is no ledger, or one of another version."""
    return InputError(
        sentence(
            f"{str(path)!r} cannot be read as a ledger",
            allowed="a SQLite file that a turnout gateway of this version wrote",
            got=str(error),
            do="check the path, or start the gateway once so that it is brought up to date",
        )
    )


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at a path from any other, or None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unusable(path: Path, error: Exception) -> ConfigError:
    """Return the error of a ledger that cannot be opened."""
    return ConfigError(
        sentence(
            f"the ledger {str(path)!r} cannot be used",
            allowed="a SQLite file that turnout made, or a new one in a folder one may write to",
            got=str(error),
            do="stop the program that holds it, or choose another ledger.path"
            if "locked" in str(error)
            else "choose another ledger.path",
        )
    )
