"""This module reads what routing needs from a request of Anthropic's Messages; its bytes stay as they are."""

from __future__ import annotations

import msgspec

from turnout.gateway.expected import mismatch
from turnout.gateway.heard import chars_of_raw
from turnout.gateway.wire import (
    ABSENT_RAW,
    CHARS_PER_TOKEN,
    ChatRequest,
    Members,
    bad,
    is_given,
    missing,
    parse_flag,
    parse_members,
    parse_string,
    wrong,
)

_MESSAGES = "a list of at least one message, each an object with 'role' and 'content'"
_DO = 'send for example [{"role": "user", "content": "hello"}]'


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    content: msgspec.Raw = ABSENT_RAW
    input: msgspec.Raw = ABSENT_RAW
    thinking: msgspec.Raw = ABSENT_RAW
    source: msgspec.Raw = ABSENT_RAW


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Format(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"null")


_READ = ("tools", "system", "output_config")
"""Members that a model reads besides the messages."""
_TOLD = ("document", "search_result")
_messages_decoder = msgspec.json.Decoder(list[_Message])
_format_decoder = msgspec.json.Decoder(_Format)


def parse_messages(body: bytes) -> ChatRequest:
    """Read a request; raises `ApiError` (400) that names the field at fault.

    The text is the last user message that has one: a message of tool results alone asks nothing new.
    """
    members = parse_members(body)
    model = parse_string(members, "model")
    messages = _read(members)
    texts = [_text(message) for message in messages if message.role == "user"]
    asked = [text for text in texts if text]
    return ChatRequest(
        members=members,
        model=model,
        text=asked[-1] if asked else None,
        num_turns=len(asked),
        input_tokens=_estimate_tokens(members, messages),
        needs=_needs(members, messages),
        is_stream=parse_flag(members, "stream"),
        asks_usage=True,
        limits=("max_tokens",),
    )


def _read(members: Members) -> list[_Message]:
    if "messages" not in members:
        raise missing("messages", _MESSAGES, _DO)
    try:
        messages = _messages_decoder.decode(members["messages"])
    except msgspec.ValidationError as error:
        found = mismatch(error)
        param = "messages" + found.place
        allowed = _MESSAGES if found.place == "" else found.allowed
        what = f"the field {param!r} is wrong"
        raise bad(what, "invalid_type", allowed=allowed, got=found.got, do=_DO, param=param) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise wrong("messages", _MESSAGES, bytes(members["messages"]), _DO) from error
    if not messages:
        what = "the field 'messages' is empty"
        raise bad(what, "invalid_value", allowed=_MESSAGES, do=_DO, param="messages")
    return messages


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(block.text for block in message.content if block.text is not None)


def _estimate_tokens(members: Members, messages: list[_Message]) -> int:
    chars = sum(len(_text(message)) for message in messages)
    for message in messages:
        if isinstance(message.content, list):
            chars += sum(map(_besides, message.content))
    chars += sum(len(bytes(members[name])) for name in _READ if is_given(members, name))
    return -(-chars // CHARS_PER_TOKEN)


def _besides(block: _Block) -> int:
    """Return the characters that a block has besides its text: calls, results, thoughts, documents."""
    chars = len(bytes(block.input)) + len(bytes(block.thinking)) + chars_of_raw(block.content)
    return chars + (chars_of_raw(block.source) if block.type in _TOLD else 0)


def _needs(members: Members, messages: list[_Message]) -> frozenset[str]:
    needs = {"tools"} if is_given(members, "tools") else set()
    if _has_format(members):
        needs.add("json")
    for message in messages:
        if isinstance(message.content, list) and any(block.type == "image" for block in message.content):
            needs.add("vision")
    return frozenset(needs)


def _has_format(members: Members) -> bool:
    try:
        config = _format_decoder.decode(members.get("output_config", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return False
    return bytes(config.format) != b"null"
