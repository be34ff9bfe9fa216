"""This module is a run's memory: one line for every call before it is made, one for what came of it.

The file is only ever added to, a line at a time, so that a run that is killed goes on where it was: what
was answered is not asked again, and a call of which no end was written counts at the most it may have cost.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, final

import msgspec

from turnout.core.errors import InputError, sentence

NAME = "record.jsonl"
"""The journal's file, inside the output folder."""
VERSION = 1

Cell = tuple[str, str, int]
"""Prompt, candidate and sample."""
Purpose = Literal["answer", "judge"]


class HeadLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="head"):
    """What the journal is."""

    version: int
    asking: dict[str, str | float | int | None]
    """How every prompt is asked; another run must ask in the same way."""


class AskedLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="asked"):
    """A call that is about to be made."""

    cell: Cell
    purpose: Purpose
    most_usd: float


class EndedLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="ended"):
    """A call that brought nothing and is over."""

    cell: Cell
    purpose: Purpose
    charged_usd: float
    """The most that it may have cost."""


class AnswerLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="answer"):
    """What a candidate said, or why it said nothing."""

    cell: Cell
    prompt: str
    """Names what was asked."""
    text: str | None
    error: str | None
    attempts: int
    charged_usd: float
    """What the last call counts against a cap: its cost where that is known, else the most it may be."""
    is_final: bool
    """Whether it stands; a call that brought nothing is tried again by the next run."""
    usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    is_estimated: bool = False
    latency_s: float | None = None
    finish: str | None = None


class ScoreLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="score"):
    """What an answer was found to be worth."""

    cell: Cell
    how: str
    """Names the scorer; another one scores anew."""
    quality: float | None
    error: str | None
    charged_usd: float = 0.0
    said: str | None = None
    """What the judge or the program said."""


Line = HeadLine | AskedLine | EndedLine | AnswerLine | ScoreLine
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


@final
@dataclass(kw_only=True, slots=True)
class State:
    """What the lines of a journal come to."""

    head: HeadLine | None = None
    answers: dict[Cell, AnswerLine] = field(default_factory=dict)
    scores: dict[Cell, ScoreLine] = field(default_factory=dict)
    spent_usd: float = 0.0
    """The most that everything so far may have cost."""
    lost: int = 0
    """Calls of which no end was written."""

    def take(self, lines: list[Line]) -> None:
        """Add the lines up; an asked call without an end counts at its most."""
        open_usd: dict[tuple[Cell, Purpose], float] = {}
        for line in lines:
            match line:
                case HeadLine():
                    self.head = line
                    # A run that begins ends the calls of the one before it, which can be in flight no more.
                    self._lose(open_usd)
                case AskedLine():
                    open_usd[line.cell, line.purpose] = line.most_usd
                case EndedLine():
                    open_usd.pop((line.cell, line.purpose), None)
                    self.spent_usd += line.charged_usd
                case AnswerLine():
                    open_usd.pop((line.cell, "answer"), None)
                    self.spent_usd += line.charged_usd
                    self.answers[line.cell] = line
                case ScoreLine():
                    open_usd.pop((line.cell, "judge"), None)
                    self.spent_usd += line.charged_usd
                    self.scores[line.cell] = line
        self._lose(open_usd)

    def _lose(self, open_usd: dict[tuple[Cell, Purpose], float]) -> None:
        self.spent_usd += sum(open_usd.values())
        self.lost += len(open_usd)
        open_usd.clear()


@final
class Journal:
    """The open journal of one run.

    Parameters
    ----------
    path:
        The file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = State()
        self._file: IO[bytes] | None = None

    def open(self, asking: dict[str, str | float | int | None]) -> None:
        """Read what is there and begin a run.

        Raises `InputError` for a file that is no journal, one that another process writes, and one whose
        prompts were asked in another way.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        if not _lock(self._file):
            self.close()
            raise InputError(
                sentence(f"the journal {str(self.path)!r} is in use by another run", do="wait for its end")
            )
        self.state.take(self._read())
        head = self.state.head
        if head is not None and head.asking != asking:
            name = next(key for key in asking if head.asking.get(key) != asking[key])
            self.close()
            raise InputError(
                sentence(
                    f"the journal {str(self.path)!r} asked with another {name}",
                    allowed=head.asking.get(name),
                    got=asking[name],
                    do="put it back, or choose another --out",
                )
            )
        self.write(HeadLine(version=VERSION, asking=asking))

    def write(self, line: Line) -> None:
        """Add a line; the system has it when this returns, so that no kill of this process loses it."""
        if self._file is None:
            raise RuntimeError("a journal is written after it was opened")
        self._file.write(_encode(line) + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def look(self) -> State:
        """Return what the file comes to, without beginning a run; raises `InputError` for no journal."""
        self.state.take(self._lines(self.path.read_bytes()) if self.path.exists() else [])
        return self.state

    def _read(self) -> list[Line]:
        """Return the lines; a last one that was cut is taken off."""
        assert self._file is not None
        self._file.seek(0)
        data = self._file.read()
        lines = self._lines(data)
        self._file.truncate(data.rfind(b"\n") + 1)
        return lines

    def _lines(self, data: bytes) -> list[Line]:
        """Parse the whole lines of a journal."""
        whole = data[: data.rfind(b"\n") + 1]
        lines: list[Line] = []
        for number, text in enumerate(whole.splitlines(), start=1):
            try:
                lines.append(_decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self.close()
                raise self._wrong(number, str(error)) from error
        if lines and (not isinstance(lines[0], HeadLine) or lines[0].version > VERSION):
            self.close()
            raise self._wrong(1, "no head of this version")
        return lines

    def _wrong(self, number: int, got: str) -> InputError:
        return InputError(
            sentence(
                f"{str(self.path)!r}, line {number}, is no line of a journal",
                allowed=f"what `turnout record` wrote, up to version {VERSION}",
                got=got,
                do="choose another --out, or mend the file",
            )
        )


def _lock(file: IO[bytes]) -> bool:
    """Take the file for this process; whether that could be done."""
    try:
        import fcntl
    except ImportError:
        return True  # without file locks (Windows) two runs into one folder are not noticed
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
