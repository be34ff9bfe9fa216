"""This module writes the turns of Anthropic's Messages as chat messages."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.refusal import refuse, unreadable
from turnout.gateway.wire import Members

_THOUGHTS = ("thinking", "redacted_thinking")
_NULL = msgspec.Raw(b"null")


class Source(msgspec.Struct):
    """Where an image or a document comes from."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""


class Block(msgspec.Struct):
    """One block of a message."""

    type: str
    text: str = ""
    source: Source | None = None
    title: str | None = None
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: str = ""
    content: msgspec.Raw = _NULL
    is_error: bool | None = None


class Turn(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Block]


_turns_decoder = msgspec.json.Decoder(list[Turn])
_content_decoder = msgspec.json.Decoder(str | list[Block] | None)


def system_message(members: Members) -> list[dict[str, Any]]:
    """Return the system prompt as the first message, where there is one."""
    content = _content(members.get("system", _NULL), "system")
    text = content if isinstance(content, str) else [_text(block.text) for block in content]
    return [{"role": "system", "content": text}] if text else []


def turns(members: Members, language: str) -> list[dict[str, Any]]:
    """Return the messages; raises `Fault` for a block that chat does not know."""
    try:
        said = _turns_decoder.decode(members["messages"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable("messages", error) from error
    found: list[dict[str, Any]] = []
    for turn in said:
        if isinstance(turn.content, str):
            found.append({"role": turn.role, "content": turn.content})
        elif turn.role == "assistant":
            found.append(_assistant(turn.content, language))
        elif turn.role == "system":
            found.append({"role": "system", "content": [_text(block.text) for block in turn.content]})
        else:
            found += _user(turn.content, language)
    return found


def _assistant(blocks: list[Block], language: str) -> dict[str, Any]:
    texts, calls = [], []
    for block in blocks:
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "tool_use":
            function = {"name": block.name, "arguments": bytes(block.input).decode()}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif block.type not in _THOUGHTS:
            raise refuse("messages[].content[].type", language, block.type)
    told: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        told["tool_calls"] = calls
    elif not texts:
        told["content"] = ""
    return told


def _user(blocks: list[Block], language: str) -> list[dict[str, Any]]:
    """Return the results of tools, each a message of its own, and then what the user says."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block.type != "tool_result":
            parts.append(_part(block, language))
            continue
        content = _content(block.content, "messages[].content[].content")
        texts = (
            content if isinstance(content, str) else "\n".join(b.text for b in content if b.type == "text")
        )
        if block.is_error and not texts.lower().startswith("error"):
            texts = f"Error: {texts}"  # chat has no other place to say so
        results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": texts})
        if not isinstance(content, str):
            parts += [_part(inner, language) for inner in content if inner.type != "text"]
    if parts:
        results.append({"role": "user", "content": parts})
    return results


def _part(block: Block, language: str) -> dict[str, Any]:
    if block.type == "text":
        return _text(block.text)
    if block.type == "image" and block.source is not None and block.source.type in ("base64", "url"):
        return {"type": "image_url", "image_url": {"url": _url(block.source)}}
    if block.type == "document" and block.source is not None:
        return _document(block, block.source, language)
    raise refuse("messages[].content[].type", language, block.type)


def _document(block: Block, source: Source, language: str) -> dict[str, Any]:
    if source.type == "text":
        return _text(source.data)
    if source.type == "file":
        return {"type": "file", "file": {"file_id": source.file_id}}
    if source.type == "base64":
        return {
            "type": "file",
            "file": {"filename": block.title or "document.pdf", "file_data": _url(source)},
        }
    raise refuse("messages[].content[].source.type", language, source.type)


def _url(source: Source) -> str:
    return source.url if source.type == "url" else f"data:{source.media_type};base64,{source.data}"


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _content(raw: msgspec.Raw, field: str) -> str | list[Block]:
    try:
        return _content_decoder.decode(raw) or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(field, error) from error
