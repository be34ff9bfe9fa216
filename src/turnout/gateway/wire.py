"""This module reads what routing needs from a chat request and passes everything else on unchanged.

The body is cut into its top-level members, each kept as the bytes that came in. Numbers, escapes and
fields that nobody here knows therefore reach the upstream exactly as they were written; only the members
that a decision sets (the model's name, an effort, a token budget) are written anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import final

import msgspec

from turnout.core.budget import Goal
from turnout.core.errors import ABSENT, sentence
from turnout.core.query import Query
from turnout.gateway.errors import ApiError
from turnout.gateway.expected import mismatch
from turnout.gateway.told import NOTHING, Told

CHARS_PER_TOKEN = 4
"""Characters per token in the estimate of a request's length; the ledger later holds the true count."""

MODELS = "/v1/models"
"""The path that lists the names a client may ask for."""

Members = dict[str, msgspec.Raw]

_TELLING = frozenset({"tools", "functions", "logprobs", "response_format", "modalities"})
"""Members that may say what a candidate must be able to do."""
_READ = ("tools", "functions", "response_format", "documents")
"""Members that a model reads besides the messages."""
_NOTHING = frozenset[str]()
_EMPTY = frozenset({b"null", b"[]", b"{}", b"false", b'""'})
_BODY = "a JSON object with the fields 'model' and 'messages'"
_MESSAGES = "a list of at least one message, each an object with 'role' and 'content'"
_SEND_MESSAGES = 'send for example [{"role": "user", "content": "hello"}]'


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


ABSENT_RAW = msgspec.Raw(b"")
"""A member that is not there."""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = ABSENT_RAW
    function_call: msgspec.Raw = ABSENT_RAW
    reasoning_content: msgspec.Raw = ABSENT_RAW
    reasoning: msgspec.Raw = ABSENT_RAW


class _Typed(msgspec.Struct):
    type: str = ""


_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_members_decoder = msgspec.json.Decoder(Members)
_messages_decoder = msgspec.json.Decoder(list[_Message])
_typed_decoder = msgspec.json.Decoder(_Typed)
_encode = msgspec.json.Encoder().encode


@final
class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One chat request: what routing reads, and the members as they came."""

    members: Members
    """Top-level members of the body, each as its own bytes."""
    model: str
    """The name that the client asked for; empty where an API lets a request name none."""
    text: str | None
    """The last user message, its text parts joined by newlines; None where there is none."""
    num_turns: int
    """Number of user messages."""
    input_tokens: int
    """Estimate: characters of all that a model reads over `CHARS_PER_TOKEN`; media count 0."""
    kept_tokens: int = 0
    """Tokens of what the upstream keeps and reads before it, where that is known."""
    needs: frozenset[str]
    """Capabilities that a candidate must have."""
    is_stream: bool
    """Whether the client wants server-sent events."""
    asks_usage: bool
    """Whether the client asked a stream for its usage chunk."""
    follows: tuple[str, ...] = ()
    """Names of what only the upstream that made it can go on from, the most telling first."""
    limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    """Members in which the request's API reads how long the answer may be."""
    dial: Goal | None = None
    """The dial that the body sets, where it sets one."""
    told: Told = NOTHING
    """The task and the tags that the client tells the router."""
    is_translated: bool = False
    """Whether the members were written here, for a client that speaks another API."""

    @property
    def prompt_tokens(self) -> int:
        """Estimate of what is charged as input."""
        return self.input_tokens + self.kept_tokens

    def query(self, decision_id: str) -> Query:
        """Return what the router sees."""
        return Query(
            id=decision_id,
            text=self.text,
            num_turns=self.num_turns,
            input_tokens=self.input_tokens,
            needs=self.needs,
            task=self.told.task,
            tags=self.told.tags,
        )


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request; raises `ApiError` (400) that names the field at fault."""
    members = parse_members(body)
    model = parse_string(members, "model")
    messages = _parse_messages(members)
    users = [message for message in messages if message.role == "user"]
    return ChatRequest(
        members=members,
        model=model,
        text=_text_of(users[-1]) if users else None,
        num_turns=len(users),
        input_tokens=_estimate_tokens(members, messages),
        needs=_needs_of(members, messages),
        is_stream=parse_flag(members, "stream"),
        asks_usage=_asks_usage(members),
    )


def estimate_tokens(chars: int) -> int:
    """Return the estimate for a text whose tokens nobody reported."""
    return -(-chars // CHARS_PER_TOKEN)


def render(members: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    """Write members back as one JSON object; every value is copied byte for byte."""
    return _encode(
        {name: raw if type(raw) is msgspec.Raw else msgspec.Raw(raw) for name, raw in members.items()}
    )


def with_usage(members: Mapping[str, msgspec.Raw | bytes]) -> dict[str, msgspec.Raw | bytes]:
    """Return the members with `stream_options.include_usage` on; other options stay as they were."""
    options: dict[str, msgspec.Raw | bytes] = {}
    if is_given(members, "stream_options"):
        options.update(_members_decoder.decode(bytes(members["stream_options"])))
    options["include_usage"] = b"true"
    return {**members, "stream_options": render(options)}


def parse_members(body: bytes) -> Members:
    """Cut a body into its members; raises `ApiError` (400)."""
    if not body.strip():
        raise bad("the request body is empty", "empty_body", allowed=_BODY, do="send one")
    try:
        body.decode("utf-8")
        return _members_decoder.decode(body)
    except UnicodeDecodeError as error:
        what, got = f"the request body is not UTF-8 (byte {error.start})", f"0x{body[error.start]:02x}"
        do = "encode the body as UTF-8"
        raise bad(what, "invalid_utf8", allowed="UTF-8", got=got, do=do) from error
    except msgspec.ValidationError as error:
        what, got = "the request body is no object", mismatch(error).got
        raise bad(what, "invalid_json", allowed=_BODY, got=got, do="send an object") from error
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error)) from error
    except RecursionError as error:
        raise too_deep() from error


def too_deep() -> ApiError:
    """400 for a body with more levels than can be gone through."""
    what, do = "the request body is nested too deeply", "send fewer levels of lists and objects"
    return bad(what, "invalid_json", allowed="some hundred levels", do=do)


def _malformed(body: bytes, got: str) -> ApiError:
    """Return the error of a body that is no JSON, with the byte at which it stops being JSON."""
    half = _HALF_PAIR.search(body)
    if half is not None and ("surrogate" in got or "hex escape" in got or "truncated" in got):
        what, allowed = "the request body holds half of a surrogate pair", "whole characters"
        got, do = (
            f"{half[0].decode()} (byte {half.start()})",
            "cut texts between characters",
        )
        return bad(what, "invalid_json", allowed=allowed, got=got, do=do)
    at = "" if "(byte " in got else f" (byte {len(body)})"
    do = "check quotes, commas and brackets there"
    return bad("the request body is malformed JSON", "invalid_json", allowed=_BODY, got=got + at, do=do)


def parse_string(members: Members, name: str) -> str:
    """Return a required text; raises `ApiError` (400)."""
    if name not in members:
        raise missing(name, f"a string: a name that GET {MODELS} lists", f"add {name!r} to the body")
    try:
        value = msgspec.json.decode(members[name], type=str)
    except msgspec.DecodeError as error:
        raise wrong(name, "a string", bytes(members[name]), f"send {name!r} as a string") from error
    if not value:
        what, allowed = f"the field {name!r} is empty", f"a name that GET {MODELS} lists"
        raise bad(what, "invalid_value", allowed=allowed, do="name a model", param=name)
    return value


def parse_flag(members: Members, name: str) -> bool:
    """Return an optional flag; raises `ApiError` (400)."""
    if name not in members:
        return False
    raw = bytes(members[name])
    if raw not in (b"true", b"false", b"null"):
        raise wrong(name, "true or false", raw, "leave the field out where it is not needed")
    return raw == b"true"


def _parse_messages(members: Members) -> list[_Message]:
    if "messages" not in members:
        raise missing("messages", _MESSAGES, _SEND_MESSAGES)
    try:
        messages = _messages_decoder.decode(members["messages"])
    except msgspec.ValidationError as error:
        found = mismatch(error)
        param = "messages" + found.place
        what = f"the field {param!r} is wrong"
        allowed = _MESSAGES if found.place == "" else found.allowed
        raise bad(
            what, "invalid_type", allowed=allowed, got=found.got, do=_SEND_MESSAGES, param=param
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise wrong("messages", _MESSAGES, bytes(members["messages"]), _SEND_MESSAGES) from error
    if not messages:
        what = "the field 'messages' is empty"
        raise bad(what, "invalid_value", allowed=_MESSAGES, do=_SEND_MESSAGES, param="messages")
    return messages


def _asks_usage(members: Members) -> bool:
    if not is_given(members, "stream_options"):
        return False
    try:
        options = _members_decoder.decode(members["stream_options"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        do = 'send for example {"include_usage": true}, or leave the field out'
        raise wrong("stream_options", "an object", bytes(members["stream_options"]), do) from error
    return bytes(options.get("include_usage", b"")) == b"true"


def _text_of(message: _Message) -> str:
    content = message.content
    if isinstance(content, list):
        return "\n".join(part.text for part in content if part.text is not None)
    return content or ""


def _estimate_tokens(members: Members, messages: list[_Message]) -> int:
    chars = 0
    for message in messages:
        chars += len(message.content if type(message.content) is str else _text_of(message))
        if message.tool_calls is not ABSENT_RAW or message.function_call is not ABSENT_RAW:
            chars += len(bytes(message.tool_calls)) + len(bytes(message.function_call))
        if message.reasoning_content is not ABSENT_RAW or message.reasoning is not ABSENT_RAW:
            chars += max(len(bytes(message.reasoning_content)), len(bytes(message.reasoning)))
    if not members.keys().isdisjoint(_READ):
        chars += sum([len(bytes(members[name])) for name in _READ if is_given(members, name)])
    return estimate_tokens(chars)


def _needs_of(members: Members, messages: list[_Message]) -> frozenset[str]:
    if members.keys().isdisjoint(_TELLING) and all(type(one.content) is str for one in messages):
        return _NOTHING
    needs = {
        need
        for name, need in (("tools", "tools"), ("functions", "tools"), ("logprobs", "logprobs"))
        if is_given(members, name)
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


def number_of(members: Mapping[str, msgspec.Raw | bytes], name: str) -> float | None:
    """Return a number, also one in quotes, as many servers take it; None for what is none."""
    raw = members.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=float | None, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if value is not None and math.isfinite(value) else None


def is_given(members: Mapping[str, msgspec.Raw | bytes], name: str) -> bool:
    """Whether a member is there and says something."""
    return name in members and bytes(members[name]).strip() not in _EMPTY


def missing(name: str, allowed: str, do: str) -> ApiError:
    """Return the error of a required field."""
    what = f"the field {name!r} is missing"
    return bad(what, "missing_required_parameter", allowed=allowed, do=do, param=name)


def wrong(name: str, allowed: str, raw: bytes, do: str) -> ApiError:
    """Return the error of a field of the wrong kind; only its beginning is shown."""
    got = raw[:40].decode("utf-8", "replace")
    return bad(f"the field {name!r} is wrong", "invalid_type", allowed=allowed, got=got, do=do, param=name)


def bad(
    what: str, code: str, *, allowed: str, do: str, param: str | None = None, got: object = ABSENT
) -> ApiError:
    """Return a 400 of one sentence."""
    return ApiError(400, sentence(what, allowed=allowed, got=got, do=do), code=code, param=param)
