"""This module speaks Anthropic's Messages."""

from __future__ import annotations

from typing import Any, ClassVar, final

import msgspec

from turnout.gateway.completion import mended
from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol, said_tokens
from turnout.gateway.protocols.messages_scan import MessagesScanner, usage_count
from turnout.gateway.protocols.messages_wire import parse_messages
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import json_reply
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.translate.chat_answer_as_messages import messages_reply
from turnout.gateway.translate.chat_stream_as_messages import ChatAsMessages
from turnout.gateway.translate.events import Translated, write_event
from turnout.gateway.translate.messages_request_as_chat import chat_request
from turnout.gateway.translate.refusal import CODE as NOT_TRANSLATABLE
from turnout.gateway.translate.words import messages_kind
from turnout.gateway.wire import ChatRequest, parse_chat


class _Answer(msgspec.Struct):
    usage: Any = None


_decoder = msgspec.json.Decoder(_Answer)


@final
class MessagesProtocol(Protocol):
    """POST /v1/messages."""

    name: ClassVar[str] = "messages"
    path: ClassVar[str] = "/v1/messages"
    ping: ClassVar[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError`."""
        return parse_messages(body)

    def scanner(self, request: ChatRequest) -> Scanner:
        """Return a scanner that changes nothing: usage is part of every stream here."""
        return MessagesScanner()

    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return usage, and where it says nothing of the answer, its length."""
        told = _read(reply.body)
        usage = usage_count(told.usage) if told is not None and isinstance(told.usage, dict) else None
        return usage, said_tokens(usage, reply.body)

    def to_chat(self, request: ChatRequest) -> ChatRequest:
        """Return the request as a chat request; raises `Fault` for what chat cannot say."""
        return msgspec.structs.replace(parse_chat(chat_request(request.members)), is_translated=True)

    def from_chat(self, reply: Reply, request: ChatRequest, upstream: str) -> Reply:
        """Return a chat reply as a message, an error of Messages, or a stream of its events."""
        if reply.chunks is None:
            return messages_reply(reply, upstream)
        chunks = Translated(reply.chunks, self.writer(request), upstream=upstream)
        return Reply(status=reply.status, headers=reply.headers, chunks=chunks)

    def writer(self, request: ChatRequest) -> ChatAsMessages:
        """Return what writes a chat stream as events of Messages."""
        return ChatAsMessages()

    def error_reply(self, error: ApiError) -> Reply:
        """Return Anthropic's error envelope, with the code and the field besides."""
        told = _envelope(error.message, messages_kind(error.status), error.code, error.param)
        if (error.code, error.param) == (NOT_TRANSLATABLE, "thread"):
            # Anthropic's clients go on without a thread where they are told so in these words.
            told["error"]["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        reply = json_reply(told)
        return Reply(status=error.status, headers=[*reply.headers, *error.headers], body=reply.body)

    def error_event(self, message: str, *, code: str) -> bytes:
        """Return an event that Anthropic's clients raise."""
        return write_event(_envelope(message, "api_error", code, None), "error")


def _read(body: bytes) -> _Answer | None:
    for told in (body, mended(body)):
        try:
            return None if told is None else _decoder.decode(told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def _envelope(message: str, kind: str, code: str, param: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message, "code": code, "param": param}
    return {"type": "error", "error": error, "request_id": None}
