"""This module writes traces as JSON lines and reads them back: every line carries the digest of the last.

Each line is one event with its number, `before`, the SHA-256 of the line before it (of nothing, for the
first), and `digest`, its own. A changed line no longer fits its digest; one whose digest was made to fit no
longer fits the line after it. Nothing follows the last line: keep the digest that `save` returns elsewhere.

Texts are left out unless asked for: of each stay its length and its SHA-256, as a placeholder that is equal
for equal texts. A short or guessable text can be found from its digest by trying; keep such records as you
would keep the texts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import ArtifactError, ArtifactVersionError, sentence
from turnout.sequential.trace import Started, Trace
from turnout.sequential.wire import event_from_dict, event_to_dict

FORMAT = 1
"""Version of the lines; a reader refuses newer ones."""

NOTHING = hashlib.sha256(b"").hexdigest()
"""The digest before the first line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with a record."""

    line: int
    """Number of the first line that was changed, from 1; one past the end where lines are missing."""
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


def to_lines(traces: Iterable[Trace], *, keep_text: bool = False) -> Iterator[str]:
    """Yield one JSON line per event of the traces, in order."""
    before = NOTHING
    events = (event for trace in traces for event in trace.events)
    for line, event in enumerate(events, start=1):
        content = event_to_dict(event, keep_text=keep_text)
        body = {"format": FORMAT, "line": line, "before": before, **content}
        before = _digest(body)
        yield _dump({**body, "digest": before})


def from_lines(lines: Iterable[str]) -> list[Trace]:
    """Return the traces of a record; raises `ArtifactError` where `verify` finds a fault."""
    kept = list(lines)
    fault = verify(kept)
    if fault is not None:
        raise ArtifactError(sentence(f"the record is damaged in {fault}", do="take an undamaged copy"))
    traces: list[Trace] = []
    for number, line in enumerate(kept, start=1):
        try:
            _add(traces, json.loads(line))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ArtifactError(sentence(f"the record holds no event in line {number}", got=error)) from error
    return traces


def save(traces: Iterable[Trace], path: str | Path, *, keep_text: bool = False) -> str:
    """Write a record and return the digest of its last line, to be kept elsewhere."""
    head = NOTHING
    with Path(path).open("w", encoding="utf-8") as file:
        for line in to_lines(traces, keep_text=keep_text):
            file.write(line + "\n")
            head = json.loads(line)["digest"]
    return head


def load(path: str | Path) -> list[Trace]:
    """Read a record; raises `ArtifactError` if it is damaged or not there."""
    return from_lines(_read(path))


def verify_file(path: str | Path, *, head: str | None = None) -> Fault | None:
    """Return the first fault of a record on disk, or None."""
    return verify(_read(path), head=head)


def verify(lines: Iterable[str], *, head: str | None = None) -> Fault | None:
    """Return the first fault of a record, or None.

    `head` is the digest that `save` returned; without it a cut-off end, or a last line that was written
    anew with its digest, cannot be seen.
    """
    before, number = NOTHING, 0
    for number, line in enumerate(lines, start=1):
        body = _parse(line)
        if body is None:
            return Fault(line=number, why="it is not a JSON object")
        if not isinstance(body.get("format"), int) or body["format"] > FORMAT:
            raise ArtifactVersionError(
                sentence("the record's format", allowed=f"1 to {FORMAT}", got=body.get("format"))
            )
        if line != _dump(body):
            # Two spellings of one object, such as a key that stands twice, must not both pass.
            return Fault(line=number, why="it does not stand as it would be written")
        stated = body.pop("digest", None)
        if stated != _digest(body):
            return Fault(line=number, why="its content does not fit its digest")
        if body.get("line") != number:
            return Fault(line=number, why="lines were removed, added or moved here")
        if body.get("before") != before:
            # Line and digest are of one piece, so it is the line before that was written anew.
            return Fault(line=max(number - 1, 1), why="it was written anew")
        before = stated
    if head is not None and head != before:
        return Fault(line=number + 1, why="the end is missing, or the last line was written anew")
    return None


def _add(traces: list[Trace], body: dict[str, Any]) -> None:
    event = event_from_dict(body)
    if isinstance(event, Started):
        traces.append(Trace(event))
    else:
        traces[-1].append(event)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        body = json.loads(line, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(text)


def _dump(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(_dump(body).encode()).hexdigest()


def _read(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ArtifactError(sentence(f"no record at {str(path)!r}", got=error.strerror)) from error
