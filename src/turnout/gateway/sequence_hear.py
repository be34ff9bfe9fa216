"""This module reads an upstream's stream for a sequencer: text as it arrives, and the usage at its end."""

from __future__ import annotations

import msgspec

from turnout.gateway.providers.base import Chunks, Fault
from turnout.gateway.stream import EventScanner, UsageCount, event_data, events_in
from turnout.sequential.live_client import Hear


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_decoder = msgspec.json.Decoder(_Chunk)


async def hear_chunks(chunks: Chunks, hear: Hear) -> tuple[str, UsageCount | None, str | None]:
    """Return (text, usage, error) of a stream of chat chunks; raises `Fault` for one that is cut.

    The error is None where the stream came to its end.
    """
    scanner = EventScanner(strip_usage=False)
    parts: list[str] = []
    try:
        while block := await chunks.read():
            piece = "".join(map(_text_of, events_in(scanner.feed(block))))
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
    return "".join(parts), scanner.usage, error


def _text_of(event: bytes) -> str:
    data = event_data(event)
    if not data.startswith(b"{"):
        return ""
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    delta = chunk.choices[0].delta if chunk.choices else None
    return "" if delta is None else delta.content or ""
