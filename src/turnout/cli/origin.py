"""This module says what a result of a command was made with, so that it can be run again."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import turnout


def origin(command: Sequence[str]) -> dict[str, str | None]:
    """Return the version, the commit of a checkout, the command, the time (UTC) and the version of Python."""
    return {
        "turnout": turnout.__version__,
        "commit": commit(),
        "command": shlex.join(["turnout", *command]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the commit that this package is checked out at; None where it was installed.

    A `+` says that its files differ from the commit.
    """
    folder = Path(turnout.__file__).parent
    # An installed package may lie in somebody's checkout of something else: git must know this very file.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return None if head is None else head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
