"""This module speaks OpenAI's Embeddings: nothing is routed, bytes are passed on both ways."""

from __future__ import annotations

from typing import ClassVar, final

import msgspec

from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import error_reply
from turnout.gateway.stream import Scanner, UsageCount, error_event
from turnout.gateway.translate.refusal import not_spoken
from turnout.gateway.wire import CHARS_PER_TOKEN, ChatRequest, missing, parse_members, parse_string, wrong

_INPUT = "a text, a list of texts, a list of tokens, or a list of such lists"
_DO = 'send for example {"input": "hello"}'

Given = str | list[str | int | list[int]]

_input_decoder: msgspec.json.Decoder[Given] = msgspec.json.Decoder(Given)


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)


@final
class EmbeddingsProtocol(Protocol):
    """POST /v1/embeddings."""

    name: ClassVar[str] = "embeddings"
    path: ClassVar[str] = "/v1/embeddings"
    is_routed: ClassVar[bool] = False

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError` (400) that names the field at fault."""
        members = parse_members(body)
        return ChatRequest(
            members=members,
            model=parse_string(members, "model"),
            text=None,
            num_turns=0,
            input_tokens=_tokens(_input(members.get("input"))),
            needs=frozenset(),
            is_stream=False,
            asks_usage=False,
        )

    def scanner(self, request: ChatRequest) -> Scanner:
        """Embeddings have no streams."""
        raise RuntimeError("embeddings have no streams")

    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return the usage; nothing is written, so no tokens come out."""
        try:
            usage = _answer_decoder.decode(reply.body).usage
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None, 0
        count = None if usage is None else usage.prompt_tokens
        return None if count is None else UsageCount(prompt_tokens=count, completion_tokens=0), 0

    def to_chat(self, request: ChatRequest) -> ChatRequest:
        """Raise `Fault`: a provider that has no embeddings cannot write them in chat."""
        raise not_spoken(self.path)

    def error_reply(self, error: ApiError) -> Reply:
        """Return OpenAI's error object."""
        return error_reply(error)

    def error_event(self, message: str, *, code: str) -> bytes:
        """Return OpenAI's error event."""
        return error_event(message, code=code)


def _input(raw: msgspec.Raw | None) -> Given:
    if raw is None:
        raise missing("input", _INPUT, _DO)
    try:
        return _input_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong("input", _INPUT, bytes(raw), _DO) from error


def _tokens(given: Given) -> int:
    """Return the estimate of the length; tokens that the client counted are counted as they are."""
    items = [given] if isinstance(given, str) else given
    return sum(1 if isinstance(item, int) else _length(item) for item in items)


def _length(item: str | list[int]) -> int:
    return len(item) if isinstance(item, list) else -(-len(item) // CHARS_PER_TOKEN)
