"""This module watches a stream of Anthropic's Messages on its way through; it changes none of its bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, final

import msgspec

from turnout.gateway.stream import MAX_HELD_BYTES, CachedCount, Scanner, UsageCount, event_data, event_start

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_MARKS = (b"message_start", b"message_delta", b"message_stop", b'"error"')
_ROLE_AND_END = 2
"""What the account takes off the number of events."""


class _Usage(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Usage = msgspec.field(default_factory=_Usage)
    usage: dict[str, Any] | None = None
    delta: _Delta | None = None


_decoder = msgspec.json.Decoder(_Event)


@final
class MessagesScanner(Scanner):
    """Reads along with a stream of Messages."""

    def __init__(self) -> None:
        self.usage: UsageCount | None = None
        self.num_events = _ROLE_AND_END
        self.is_done = False
        self.is_finished = False
        self.has_error = False
        self.has_bad_event = False
        self._counted: dict[str, Any] = {}
        self._held = b""

    @property
    def is_complete(self) -> bool:
        """Whether the stream said that it ended: by `message_stop`, a stop reason, or an error."""
        return self.is_done or self.is_finished or self.has_error

    def feed(self, block: bytes) -> bytes:
        """Return the bytes to forward now; an unfinished event is held until its end arrives."""
        data = self._held + block if self._held else block
        end = event_start(data, 0, len(data))
        if end == 0 and len(data) > MAX_HELD_BYTES:
            self._held = b""
            return data
        whole, self._held = (data, b"") if end == len(data) else (data[:end], data[end:])
        self.num_events += whole.count(b"event: content_block_delta")
        if any(mark in whole for mark in _MARKS):
            for event in _BOUNDARY.split(whole):
                if any(mark in event for mark in _MARKS):
                    self._read(event)
        return whole

    def _read(self, event: bytes) -> None:
        try:
            told = _decoder.decode(event_data(event))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.has_bad_event = True
            return
        if told.type == "message_start":
            self._count(told.message.usage)
        elif told.type == "message_delta":
            self._count(told.usage)
            self.is_finished |= told.delta is not None and told.delta.stop_reason is not None
        elif told.type == "message_stop":
            self.is_done = True
        elif told.type == "error":
            self.has_error = True

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        """Take over counts; those of later events include the earlier ones."""
        if usage is not None:
            self._counted.update({name: count for name, count in usage.items() if count is not None})
            self.usage = usage_count(self._counted)


def usage_count(usage: Mapping[str, Any]) -> UsageCount:
    """Return what is accounted: input with what a cache gave and took, output, and what a cache gave."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = [usage.get(name) for name in names]
    tokens_in = [count for count in counts if isinstance(count, int)]
    tokens_out = usage.get("output_tokens")
    cached = counts[1]
    return UsageCount(
        prompt_tokens=sum(tokens_in) if tokens_in else None,
        completion_tokens=tokens_out if isinstance(tokens_out, int) else None,
        prompt_tokens_details=CachedCount(cached_tokens=cached) if isinstance(cached, int) else None,
    )
