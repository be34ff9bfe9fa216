"""This module watches a stream of Anthropic's Messages on its way through; it changes none of its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import msgspec

from turnout.gateway.protocols.scan import NamedScanner
from turnout.gateway.stream import CachedCount, UsageCount, event_data, whole_count
from turnout.gateway.translate.words import written_1h


class _Usage(msgspec.Struct):
    usage: Any = None


class _Delta(msgspec.Struct):
    stop_reason: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Usage = msgspec.field(default_factory=_Usage)
    usage: Any = None
    delta: _Delta | None = None


_decoder = msgspec.json.Decoder(_Event)


@final
class MessagesScanner(NamedScanner):
    """Reads along with a stream of Messages."""

    marks = (b"message_start", b"message_delta", b"message_stop", b'"error"')
    text_mark = b"event: content_block_delta"

    def __init__(self) -> None:
        super().__init__()
        self._counted: dict[str, Any] = {}

    def read(self, event: bytes) -> None:
        """Take over usage, the end, or an error."""
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
            # What the start says is what the prompt took, and the first token.
            self.is_usage_last = self.is_finished and told.usage is not None
        elif told.type == "message_stop":
            self.is_done = True
        elif told.type == "error":
            self.has_error = True

    def _count(self, usage: object) -> None:
        """Take over counts; those of later events include the earlier ones."""
        if isinstance(usage, dict):
            self._counted.update({name: count for name, count in usage.items() if count is not None})
            self.usage = usage_count(self._counted)


def usage_count(usage: Mapping[str, Any]) -> UsageCount:
    """Return what is accounted: input with what a cache gave and took, output, and what a cache gave."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = [whole_count(usage.get(name)) for name in names]
    tokens_in = [count for count in counts if count is not None]
    return UsageCount(
        prompt_tokens=sum(tokens_in) if tokens_in else None,
        completion_tokens=whole_count(usage.get("output_tokens")),
        prompt_tokens_details=CachedCount(
            cached_tokens=counts[1],
            cache_write_tokens=counts[2],
            cache_write_1h_tokens=written_1h(usage),
        ),
    )
