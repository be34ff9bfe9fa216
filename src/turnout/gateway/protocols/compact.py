"""This module speaks the compaction of OpenAI's Responses: a conversation goes in, a shorter one comes out.

What comes out is sealed by the upstream that made it, so it can only be gone on from there, and no other API
has a word for it: bytes are passed on to who speaks it, and everybody else is passed over.
"""

from __future__ import annotations

from typing import ClassVar, final

import msgspec

from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.providers.base import Reply
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.translate.refusal import not_spoken
from turnout.gateway.wire import ChatRequest

_RESPONSES = ResponsesProtocol()


@final
class CompactProtocol(Protocol):
    """POST /v1/responses/compact."""

    name: ClassVar[str] = "compact"
    path: ClassVar[str] = "/v1/responses/compact"

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError`. There are no streams of it, and no limit of what comes out."""
        return msgspec.structs.replace(_RESPONSES.parse(body), is_stream=False, limits=())

    def scanner(self, request: ChatRequest) -> Scanner:
        """Compaction has no streams."""
        raise RuntimeError("compaction has no streams")

    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return usage, and where it says nothing of what came out, its length."""
        return _RESPONSES.read_answer(reply)

    def made(self, body: bytes) -> tuple[str, ...]:
        """Return the names of what came out: items, and what they seal."""
        return _RESPONSES.made(body)

    def to_chat(self, request: ChatRequest) -> ChatRequest:
        """Raise `Fault`: nothing in chat is a compaction."""
        raise not_spoken(self.path)

    def error_reply(self, error: ApiError) -> Reply:
        """Return OpenAI's error object."""
        return _RESPONSES.error_reply(error)

    def error_event(self, message: str, *, code: str) -> bytes:
        """Return the event that would end a stream that was cut."""
        return _RESPONSES.error_event(message, code=code)
