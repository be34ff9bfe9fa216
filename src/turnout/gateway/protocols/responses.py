"""This module speaks OpenAI's Responses: bytes are passed on where the upstream speaks them, else chat is.

What an upstream keeps can only be gone on from there: an earlier response, a conversation, reasoning that it
encrypted. Their names are read from answers, and from the requests that build on them.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import msgspec

from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol, said_tokens
from turnout.gateway.protocols.responses_scan import ResponsesScanner, read_kept
from turnout.gateway.protocols.responses_wire import parse_responses
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import error_reply
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.translate.chat_answer_as_responses import responses_reply
from turnout.gateway.translate.chat_stream_as_responses import ChatAsResponses
from turnout.gateway.translate.events import Translated, write_event
from turnout.gateway.translate.responses_request_as_chat import chat_request
from turnout.gateway.wire import ChatRequest, parse_chat


@final
class ResponsesProtocol(Protocol):
    """POST /v1/responses."""

    name: ClassVar[str] = "responses"
    path: ClassVar[str] = "/v1/responses"

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError`."""
        return parse_responses(body)

    def scanner(self, request: ChatRequest) -> Scanner:
        """Return a scanner that changes nothing: usage is part of every stream here."""
        return ResponsesScanner()

    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return usage, and where it says nothing of the answer, its length."""
        kept = read_kept(reply.body)
        usage = None if kept is None else kept.count
        return usage, said_tokens(usage, reply.body)

    def made(self, body: bytes) -> tuple[str, ...]:
        """Return the names of the response, of its conversation and of its encrypted reasoning."""
        kept = read_kept(body)
        return () if kept is None else kept.names

    def unfinished(self, body: bytes) -> str | None:
        """Return the id of a response that is made in the background."""
        kept = read_kept(body) if b'"queued"' in body or b'"in_progress"' in body else None
        return kept.id if kept is not None and kept.is_unfinished else None

    def to_chat(self, request: ChatRequest) -> ChatRequest:
        """Return the request as a chat request; raises `Fault` for what chat cannot say."""
        # Chat has no word for a request that leaves the model to the router.
        members = {"model": msgspec.Raw(msgspec.json.encode(request.model)), **request.members}
        return msgspec.structs.replace(parse_chat(chat_request(members)), is_translated=True)

    def from_chat(self, reply: Reply, request: ChatRequest, upstream: str) -> Reply:
        """Return a chat reply as a response, or as a stream of its events."""
        if reply.chunks is None:
            return responses_reply(reply, request, upstream)
        chunks = Translated(reply.chunks, self.writer(request), upstream=upstream)
        return Reply(status=reply.status, headers=reply.headers, chunks=chunks)

    def writer(self, request: ChatRequest) -> ChatAsResponses:
        """Return what writes a chat stream as events of Responses."""
        return ChatAsResponses(request=request)

    def error_reply(self, error: ApiError) -> Reply:
        """Return OpenAI's error object."""
        return error_reply(error)

    def error_event(self, message: str, *, code: str) -> bytes:
        """Return the `error` event of this API, which OpenAI's clients raise for its member `error`."""
        error: dict[str, Any] = {"message": message, "type": "upstream_error", "param": None, "code": code}
        event = {"type": "error", "code": code, "message": message, "param": None, "error": error}
        return write_event(event, "error")
