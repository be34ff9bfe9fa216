"""This module reads of OpenAI's Responses what is accounted, and what the upstream keeps."""

from __future__ import annotations

from typing import Any, final

import msgspec

from turnout.gateway.completion import mended
from turnout.gateway.pins_store import conversation_name, item_name, seal
from turnout.gateway.protocols.scan import NamedScanner
from turnout.gateway.stream import UsageCount, event_data, read_usage

FAILED = "failed"
_UNFINISHED = ("queued", "in_progress")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    encrypted_content: str | None = None


class _Conversation(msgspec.Struct):
    id: str = ""


class Kept(msgspec.Struct):
    """The part of a response that is read here."""

    id: str = ""
    status: Any = None
    usage: Any = None
    """An object of counts; what is none is no reason to lose the rest."""
    output: list[_Item] = []
    conversation: _Conversation | None = None
    store: bool | None = None

    @property
    def count(self) -> UsageCount | None:
        """The usage, in the words of the account."""
        if not isinstance(self.usage, dict):
            return None
        details = self.usage.get("input_tokens_details")
        return read_usage(
            {
                "prompt_tokens": self.usage.get("input_tokens"),
                "completion_tokens": self.usage.get("output_tokens"),
                "prompt_tokens_details": details,
            }
        )

    @property
    def is_unfinished(self) -> bool:
        """Whether the upstream still works on it."""
        return self.status in _UNFINISHED

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what only this upstream can go on from."""
        sealed = [seal(item.encrypted_content) for item in self.output if item.encrypted_content]
        own = None if self.conversation is None else self.conversation.id
        conversation = [conversation_name(own)] if own else []
        # What is not kept cannot be referred to.
        items = [item_name(item.id) for item in self.output if item.id] if self.store is not False else []
        return tuple(name for name in [self.id, *conversation, *items, *sealed] if name)


class _Event(msgspec.Struct):
    type: str = ""
    response: Kept = msgspec.field(default_factory=Kept)


_decoder = msgspec.json.Decoder(_Event)
_kept_decoder = msgspec.json.Decoder(Kept)


def read_kept(body: bytes) -> Kept | None:
    """Return what is read of a whole response; None where it is none."""
    for told in (body, mended(body)):
        try:
            return None if told is None else _kept_decoder.decode(told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


@final
class ResponsesScanner(NamedScanner):
    """Reads along with a stream of Responses."""

    marks = (b"response.created", *(end.encode() for end in _ENDS), b'"error"')
    text_mark = b"event: response.output_text.delta"

    def read(self, event: bytes) -> None:
        """Take over what is kept, usage, the end, or an error."""
        try:
            told = _decoder.decode(event_data(event))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.has_bad_event = True
            return
        if told.type in ("response.created", *_ENDS):
            self.made = told.response.names
            self.response_id = told.response.id or None
            self.usage = told.response.count or self.usage
            self.is_done |= told.type in _ENDS
            self.is_usage_last = self.is_done and self.usage is not None
        self.has_error |= told.type in ("error", "response.failed")
