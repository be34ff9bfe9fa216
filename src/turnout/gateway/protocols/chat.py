"""This module speaks OpenAI's Chat Completions."""

from __future__ import annotations

from typing import ClassVar, final

from turnout.gateway.completion import read_completion
from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol, said_tokens
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import error_reply
from turnout.gateway.stream import EventScanner, Scanner, UsageCount, error_event
from turnout.gateway.wire import ChatRequest, parse_chat


@final
class ChatProtocol(Protocol):
    """POST /v1/chat/completions."""

    name: ClassVar[str] = "chat"
    path: ClassVar[str] = "/v1/chat/completions"

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError`."""
        return parse_chat(body)

    def scanner(self, request: ChatRequest) -> Scanner:
        """Return a scanner that takes out the usage chunk of a client that did not ask for it."""
        return EventScanner(strip_usage=not request.asks_usage)

    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return usage, and where it says nothing of the answer, its length."""
        completion = reply.completion or read_completion(reply.body)
        usage = None if completion is None else completion.usage
        return usage, said_tokens(usage, reply.body)

    def error_reply(self, error: ApiError) -> Reply:
        """Return OpenAI's error object."""
        return error_reply(error)

    def error_event(self, message: str, *, code: str) -> bytes:
        """Return an event that OpenAI's clients raise as an APIError."""
        return error_event(message, code=code)
