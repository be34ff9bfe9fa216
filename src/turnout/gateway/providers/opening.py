"""This module reads how a stream opens: while it has said nothing of an answer, another one can be asked.

Comments, and events that only announce an answer, say nothing yet; an error may still follow them.
"""

from __future__ import annotations

import re
from typing import Any, Literal, final

import msgspec

from turnout.gateway.stream import BOUNDARY, event_data, event_start

MOST_BYTES = 2**16
"""Of an opening; who says so much before an answer is passed on as it is."""

_ANNOUNCED = frozenset(
    "message_start content_block_start ping response.created response.queued response.in_progress"
    " response.output_item.added response.content_part.added response.reasoning_summary_part.added".split()
)
_FAILED = frozenset({"error", "response.failed"})
_ERROR = "error"
"""What some servers say in place of an answer: as its object, or as its finish reason."""
_IS_ERROR = re.compile(rb"^event: ?error\s*$", re.MULTILINE)
_SAYS = re.compile(rb'"content"\s*:\s*"[^"]')

Look = Literal["silent", "begun", "failed"]


@final
class Opening(msgspec.Struct, frozen=True):
    """What the first bytes of a stream say."""

    look: Look
    error: bytes = b""
    """What was said in place of an answer."""


SILENT, BEGUN = Opening("silent"), Opening("begun")


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    text: str | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    object: Any = None
    error: Any = None
    choices: list[_Choice] | None = None


_decoder = msgspec.json.Decoder(_Event)


def read_opening(held: bytes) -> Opening:
    """Return what the events that are whole say, in any of the APIs that write JSON as server-sent events."""
    # Nearly always: a text, or before it one event of a single line.
    if len(held) > MOST_BYTES or (b"error" not in held and _SAYS.search(held) is not None):
        return BEGUN
    if held.startswith(b"data: {") and held.find(b"\n") == len(held) - 2 and held.endswith(b"\n\n"):
        return _read(held[6:-2], is_error=False)
    for event in BOUNDARY.split(held[: event_start(held, 0, len(held))]):
        data = event_data(event).strip()
        if not data:
            continue  # a comment
        opening = _read(data, is_error=_IS_ERROR.search(event) is not None)
        if opening is not SILENT:
            return opening
    return SILENT


def _read(data: bytes, *, is_error: bool) -> Opening:
    if data == b"[DONE]":
        return Opening("failed", data)
    try:
        told = _decoder.decode(data)
    except msgspec.ValidationError:
        if not data.startswith(b"{"):
            return Opening("failed", data)
        return Opening("failed", data) if is_error else BEGUN
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Opening("failed", data)
    if is_error or told.type in _FAILED or told.error or told.object == _ERROR:
        return Opening("failed", data)
    if told.choices is None:
        return SILENT if told.type in _ANNOUNCED else BEGUN
    for choice in told.choices:
        if choice.finish_reason == _ERROR:
            return Opening("failed", data)
        if choice.finish_reason is not None or choice.text:
            return BEGUN
        for name, value in (choice.delta or {}).items():
            if value and name != "role":
                return BEGUN
    return SILENT
