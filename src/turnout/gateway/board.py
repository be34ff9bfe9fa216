"""This module lets the workers of a gateway see each other's numbers: each writes its own once a second.

A worker that is started again goes on from what its predecessor wrote, so that no counter falls.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import final

import msgspec

from turnout.gateway.metrics import Tally

PERIOD_S = 1.0
"""Seconds between two writings: how old another worker's numbers may be."""


class Snapshot(msgspec.Struct):
    """The numbers of one worker at one moment."""

    tally: Tally
    running: int = 0
    waiting: int = 0
    pending_rows: int = 0
    is_ledger_up: bool = True
    configured_s: float = 0.0
    breakers: dict[tuple[str, str], tuple[int, float]] = {}
    """Provider and model -> how bad its state is, and the seconds until a call may pass."""
    shadows: dict[tuple[str, ...], int] = {}
    """Why decisions of a second deployment are missing -> how many."""

    def add(self, other: Snapshot) -> None:
        """Take another worker's numbers in; of breakers the worst is shown."""
        self.tally.add(other.tally)
        self.running += other.running
        self.waiting += other.waiting
        self.pending_rows += other.pending_rows
        self.is_ledger_up = self.is_ledger_up and other.is_ledger_up
        self.configured_s = min(self.configured_s, other.configured_s)
        for key, state in other.breakers.items():
            self.breakers[key] = max(self.breakers.get(key, state), state)
        for why, number in other.shadows.items():
            self.shadows[why] = self.shadows.get(why, 0) + number


@final
class Board:
    """A folder with one file for each worker.

    Parameters
    ----------
    folder:
        Shared by the workers of one gateway.
    slot:
        Which of them this is.
    """

    def __init__(self, *, folder: Path, slot: int) -> None:
        self.folder = folder
        self.path = folder / f"{slot}.numbers"

    def write(self, snapshot: Snapshot) -> None:
        """Write this worker's numbers; a reader sees the old ones or the new ones."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(snapshot))
        fresh.replace(self.path)

    def before(self) -> Tally:
        """Return what the predecessor of this worker had counted."""
        found = _read(self.path)
        return Tally() if found is None else found.tally

    def others(self) -> list[Snapshot]:
        """Return the numbers of the other workers."""
        paths = [path for path in sorted(self.folder.glob("*.numbers")) if path != self.path]
        return [found for path in paths if (found := _read(path)) is not None]


def _read(path: Path) -> Snapshot | None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    return None
