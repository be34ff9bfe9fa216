"""This module reads what routing needs from a chat request and passes everything else on unchanged.

The body is cut into its top-level members, each kept as the bytes that came in. Numbers, escapes and
fields that nobody here knows therefore reach the upstream exactly as they were written; only the members
that a decision sets (the model's name, an effort, a token budget) are written anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import msgspec

from turnout.core.errors import ABSENT, sentence
from turnout.core.query import Query
from turnout.gateway.errors import ApiError

CHARS_PER_TOKEN = 4
"""Characters per token in the estimate of a request's length; the ledger later holds the true count."""

Members = dict[str, msgspec.Raw]

_EMPTY = frozenset({b"null", b"[]", b"{}", b"false", b'""'})


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _Typed(msgspec.Struct):
    type: str = ""


_members_decoder = msgspec.json.Decoder(Members)
_messages_decoder = msgspec.json.Decoder(list[_Message])
_typed_decoder = msgspec.json.Decoder(_Typed)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One chat request: what routing reads, and the members as they came."""

    members: Members
    """Top-level members of the body, each as its own bytes."""
    model: str
    """The name that the client asked for."""
    text: str | None
    """The last user message, its text parts joined by newlines; None where there is none."""
    num_turns: int
    """Number of user messages."""
    input_tokens: int
    """Estimate: characters of all messages and tool definitions over `CHARS_PER_TOKEN`; media count 0."""
    needs: frozenset[str]
    """Capabilities that a candidate must have."""
    is_stream: bool
    """Whether the client wants server-sent events."""
    asks_usage: bool
    """Whether the client asked a stream for its usage chunk."""

    def query(self, decision_id: str) -> Query:
        """Return what the router sees."""
        return Query(
            id=decision_id,
            text=self.text,
            num_turns=self.num_turns,
            input_tokens=self.input_tokens,
            needs=self.needs,
        )


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request; raises `ApiError` (400) that names the field at fault."""
    members = _parse_members(body)
    model = _parse_string(members, "model")
    messages = _parse_messages(members)
    users = [message for message in messages if message.role == "user"]
    return ChatRequest(
        members=members,
        model=model,
        text=_text_of(users[-1]) if users else None,
        num_turns=len(users),
        input_tokens=_estimate_tokens(members, messages),
        needs=_needs_of(members, messages),
        is_stream=_parse_flag(members, "stream"),
        asks_usage=_asks_usage(members),
    )


def render(members: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    """Write members back as one JSON object; every value is copied byte for byte."""
    parts = [msgspec.json.encode(name) + b":" + bytes(value) for name, value in members.items()]
    return b"{" + b",".join(parts) + b"}"


def with_usage(members: Mapping[str, msgspec.Raw | bytes]) -> dict[str, msgspec.Raw | bytes]:
    """Return the members with `stream_options.include_usage` on; other options stay as they were."""
    options: dict[str, msgspec.Raw | bytes] = {}
    if _is_given(members, "stream_options"):
        options.update(_members_decoder.decode(bytes(members["stream_options"])))
    options["include_usage"] = b"true"
    return {**members, "stream_options": render(options)}


def _parse_members(body: bytes) -> Members:
    if not body.strip():
        raise _bad("the request body is empty", "empty_body", do="send a JSON object with model and messages")
    try:
        body.decode("utf-8")
        return _members_decoder.decode(body)
    except UnicodeDecodeError as error:
        raise _bad(f"the request body is not UTF-8 (byte {error.start})", "invalid_utf8") from error
    except msgspec.ValidationError as error:
        raise _bad("the request body must be a JSON object", "invalid_json", got=str(error)) from error
    except msgspec.DecodeError as error:
        raise _bad("the request body is not valid JSON", "invalid_json", got=str(error)) from error
    except RecursionError as error:
        raise _bad("the request body is nested too deeply", "invalid_json") from error


def _parse_string(members: Members, name: str) -> str:
    if name not in members:
        raise _bad(f"the field {name!r} is missing", "missing_required_parameter", param=name)
    try:
        value = msgspec.json.decode(members[name], type=str)
    except msgspec.DecodeError as error:
        raise _bad(f"the field {name!r} is wrong", "invalid_type", param=name, got=str(error)) from error
    if not value:
        raise _bad(f"the field {name!r} is empty", "invalid_value", param=name)
    return value


def _parse_flag(members: Members, name: str) -> bool:
    raw = bytes(members.get(name, b"false"))
    if raw not in (b"true", b"false", b"null"):
        raise _bad(f"the field {name!r} is wrong", "invalid_type", param=name, got=raw[:40].decode())
    return raw == b"true"


def _parse_messages(members: Members) -> list[_Message]:
    if "messages" not in members:
        raise _bad("the field 'messages' is missing", "missing_required_parameter", param="messages")
    try:
        messages = _messages_decoder.decode(members["messages"])
    except (msgspec.DecodeError, RecursionError) as error:
        place = re.search(r"`\$([^`]*)`", str(error))
        param = "messages" + (place.group(1) if place else "")
        raise _bad(f"the field {param!r} is wrong", "invalid_type", param=param, got=str(error)) from error
    if not messages:
        raise _bad("the field 'messages' is empty", "invalid_value", param="messages")
    return messages


def _asks_usage(members: Members) -> bool:
    if not _is_given(members, "stream_options"):
        return False
    try:
        options = _members_decoder.decode(members["stream_options"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(
            "the field 'stream_options' must be an object", "invalid_type", param="stream_options"
        ) from error
    return bytes(options.get("include_usage", b"")) == b"true"


def _text_of(message: _Message) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content if part.text is not None)
    return message.content or ""


def _estimate_tokens(members: Members, messages: list[_Message]) -> int:
    chars = sum(len(_text_of(message)) for message in messages)
    chars += sum(len(bytes(members[name])) for name in ("tools", "functions") if _is_given(members, name))
    return -(-chars // CHARS_PER_TOKEN)


def _needs_of(members: Members, messages: list[_Message]) -> frozenset[str]:
    needs = {
        need
        for name, need in (("tools", "tools"), ("functions", "tools"), ("logprobs", "logprobs"))
        if _is_given(members, name)
    }
    if _type_of(members, "response_format") in ("json_object", "json_schema"):
        needs.add("json")
    if b'"audio"' in bytes(members.get("modalities", b"")):
        needs.add("audio")
    media = {"image_url": "vision", "input_audio": "audio"}
    for message in messages:
        if isinstance(message.content, list):
            needs.update(media[part.type] for part in message.content if part.type in media)
    return frozenset(needs)


def _type_of(members: Members, name: str) -> str:
    """Return the `type` of an object member; a shape that is not known here is the upstream's business."""
    try:
        return _typed_decoder.decode(members.get(name, b"{}")).type
    except (msgspec.DecodeError, RecursionError):
        return ""


def _is_given(members: Mapping[str, msgspec.Raw | bytes], name: str) -> bool:
    return name in members and bytes(members[name]).strip() not in _EMPTY


def _bad(
    what: str, code: str, *, param: str | None = None, got: object = ABSENT, do: str | None = None
) -> ApiError:
    return ApiError(400, sentence(what, got=got, do=do), code=code, param=param)
