"""This module defines what an importer is, and what it may look at to recognise a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from turnout.core.outcomes import OutcomeTable
from turnout.core.progress import Progress, silent

Kind = Literal["csv", "json", "jsonl", "parquet", "sqlite", "folder", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The beginning of a file: enough to recognise a format, never the whole."""

    path: Path
    """Where it is."""
    kind: Kind
    """What the first bytes say it is."""
    columns: tuple[str, ...] = ()
    """CSV header, parquet column names, or the keys of the first JSON object; SQLite table names."""
    is_list: bool = False
    """Whether a JSON file holds a list (of which `columns` are the first object's keys)."""
    inner: Head | None = None
    """For a folder: the head of its first data file by name."""


class Importer(ABC):
    """Reads one foreign format into an `OutcomeTable`.

    The constructor takes the format's options (keyword-only) and validates them; `read` does the work.
    Unknown stays unknown: an importer never writes 0 for a missing score, cost, count or time.
    """

    summary: ClassVar[str]
    """One line: what the format is and who writes it."""
    is_general: ClassVar[bool] = False
    """Whether the format gives way where another, which says more, recognises a file too."""
    progress: Progress = staticmethod(silent)
    """Who is told how far a long file was read; set before `read`."""

    @classmethod
    @abstractmethod
    def recognises(cls, head: Head) -> bool:
        """Whether a file with this beginning is in the format."""

    @abstractmethod
    def read(self, path: Path) -> OutcomeTable:
        """Read `path`; raises `TableError` naming the file, and the line or row, of what is wrong."""
