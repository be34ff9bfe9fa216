"""This module reads what routing needs from a request of OpenAI's Responses; its bytes stay as they are."""

from __future__ import annotations

import msgspec

from turnout.gateway.heard import chars_of_raw
from turnout.gateway.pins_store import conversation_name, item_name, seal
from turnout.gateway.translate.refusal import plain
from turnout.gateway.wire import (
    ABSENT_RAW,
    CHARS_PER_TOKEN,
    ChatRequest,
    Members,
    is_given,
    parse_flag,
    parse_members,
    parse_string,
    wrong,
)

_INPUT = "a text, or a list of items"
_DO = 'send for example {"input": "hello"}'
_MEDIA = {"input_image": "vision", "input_audio": "audio"}


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    output: msgspec.Raw = ABSENT_RAW
    arguments: msgspec.Raw = ABSENT_RAW
    input: msgspec.Raw = ABSENT_RAW
    action: msgspec.Raw = ABSENT_RAW
    summary: msgspec.Raw = ABSENT_RAW
    encrypted_content: str | None = None


class _Form(msgspec.Struct):
    type: str = ""


class _Text(msgspec.Struct):
    format: _Form | None = None


_READ = ("tools", "instructions", "text", "prompt")
"""Members that a model reads besides the input."""
_input_decoder = msgspec.json.Decoder(str | list[_Item])
_text_decoder = msgspec.json.Decoder(_Text)


def parse_responses(body: bytes) -> ChatRequest:
    """Read a request; raises `ApiError` (400) that names the field at fault."""
    members = parse_members(body)
    model = parse_string(members, "model") if "model" in members else ""
    items = _items(members)
    texts = [_text(item) for item in items if item.role == "user"]
    asked = [text for text in texts if text]
    return ChatRequest(
        members=members,
        model=model,
        text=asked[-1] if asked else None,
        num_turns=len(asked),
        input_tokens=_estimate_tokens(members, items),
        needs=_needs(members, items),
        is_stream=parse_flag(members, "stream"),
        asks_usage=True,
        limits=("max_output_tokens",),
        follows=_follows(members, items),
    )


def _items(members: Members) -> list[_Item]:
    """Return the input as items; it may be absent, where a stored prompt stands for it."""
    if not is_given(members, "input"):
        return []
    try:
        given = _input_decoder.decode(members["input"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong("input", _INPUT, bytes(members["input"]), _DO) from error
    return [_Item(role="user", content=given)] if isinstance(given, str) else given


def _text(item: _Item) -> str:
    if isinstance(item.content, list):
        return "\n".join(part.text for part in item.content if part.text is not None)
    return item.content or ""


def _estimate_tokens(members: Members, items: list[_Item]) -> int:
    chars = sum(len(_text(item)) + _besides(item) for item in items)
    chars += sum(len(bytes(members[name])) for name in _READ if is_given(members, name))
    return -(-chars // CHARS_PER_TOKEN)


def _besides(item: _Item) -> int:
    """Return the characters that an item has besides its text: calls of tools, their results, thoughts."""
    thoughts = max(len(bytes(item.summary)), len(item.encrypted_content or ""))
    parts = (item.arguments, item.input, item.action)
    return sum([len(bytes(part)) for part in parts]) + chars_of_raw(item.output) + thoughts


def _needs(members: Members, items: list[_Item]) -> frozenset[str]:
    needs = {"tools"} if is_given(members, "tools") else set()
    try:
        form = _text_decoder.decode(members.get("text", b"{}")).format
    except (msgspec.DecodeError, RecursionError):
        form = None
    if form is not None and form.type in ("json_schema", "json_object"):
        needs.add("json")
    for item in items:
        if isinstance(item.content, list):
            needs.update(_MEDIA[part.type] for part in item.content if part.type in _MEDIA)
    return frozenset(needs)


def _is_reference(item: _Item) -> bool:
    """Whether an item only names one that is kept; its type may be left out."""
    return item.type == "item_reference" or (item.type is None and item.role is None)


def _follows(members: Members, items: list[_Item]) -> tuple[str, ...]:
    conversation = plain(members.get("conversation"))
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    names = [conversation_name(conversation)] if isinstance(conversation, str) else []
    previous = plain(members.get("previous_response_id"))
    names += [previous] if isinstance(previous, str) else []
    names += [item_name(item.id) for item in items if item.id is not None and _is_reference(item)]
    # The latest reasoning is the one that the next step goes on from.
    names += [seal(item.encrypted_content) for item in reversed(items) if item.encrypted_content]
    return tuple(names)
