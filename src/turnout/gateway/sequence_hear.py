"""This module reads an upstream's stream for a sequencer: text as it arrives, and the usage at its end."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from turnout.gateway.providers.base import Chunks, Fault
from turnout.gateway.stream import EventScanner, UsageCount, event_data, events_in
from turnout.sequential.live_client import Hear


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_decoder = msgspec.json.Decoder(_Chunk)


class Heard(NamedTuple):
    """What a stream came to."""

    text: str
    usage: UsageCount | None
    error: str | None
    """None where the stream came to its end."""
    finish: object
    """The last finish reason, as it was sent."""


async def hear_chunks(chunks: Chunks, hear: Hear) -> Heard:
    """Return what a stream of chat chunks came to; raises `Fault` for one that is cut."""
    scanner = EventScanner(strip_usage=False)
    parts: list[str] = []
    finish: object = None
    try:
        while block := await chunks.read():
            choices = [_choice_of(event) for event in events_in(scanner.feed(block))]
            finish = next((one.finish_reason for one in reversed(choices) if one.finish_reason), finish)
            piece = "".join([one.delta.content or "" for one in choices if one.delta is not None])
            if piece:
                parts.append(piece)
                await hear(piece)
    except Fault:
        if not scanner.is_done:
            raise
    finally:
        chunks.close()
    error = None
    if scanner.has_error:
        error = "the upstream ended its stream with an error"
    elif not scanner.is_complete:
        error = "the upstream ended its stream before the answer was complete"
    return Heard("".join(parts), scanner.usage, error, finish)


def _choice_of(event: bytes) -> _Choice:
    """Return the first choice of an event; one without a word where there is none."""
    data = event_data(event)
    if not data.startswith(b"{"):
        return _Choice()
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Choice()
    return chunk.choices[0] if chunk.choices else _Choice()
