"""This module reads the messages of a chat request as far as a translation needs them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from turnout.gateway.translate.refusal import unreadable

NULL = msgspec.Raw(b"null")
"""A member that is absent; a `Raw` cannot be optional."""


class Link(msgspec.Struct):
    """Where an image lies: at a URL, or in one that begins with `data:`."""

    url: str


class File(msgspec.Struct):
    """A file, as its content or by its id."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Audio(msgspec.Struct):
    """A sound, in base64."""

    data: str
    format: str = "wav"


class ChatPart(msgspec.Struct):
    """One part of a content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Link | None = None
    file: File | None = None
    input_audio: Audio | None = None
    cache_control: msgspec.Raw = NULL


class Function(msgspec.Struct):
    """What a tool call calls."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """One call of a tool by the assistant."""

    id: str
    function: Function | None = None
    type: str = "function"
    extra_content: dict[str, Any] | None = None

    @property
    def signature(self) -> str | None:
        """Gemini's signature of the thoughts before the call, where its answer brought one."""
        found = (self.extra_content or {}).get("google")
        signature = found.get("thought_signature") if isinstance(found, dict) else None
        return signature if isinstance(signature, str) else None


class ChatMessage(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[ChatPart] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    thinking_blocks: list[msgspec.Raw] | None = None
    """Anthropic's thinking, as an earlier answer brought it; its signature holds for these very bytes."""
    cache_control: msgspec.Raw = NULL

    @property
    def parts(self) -> list[ChatPart]:
        """The content as parts; a text is one of them."""
        if isinstance(self.content, list):
            return self.content
        return [ChatPart(type="text", text=self.content)] if self.content else []

    def text_blocks(self) -> list[dict[str, Any]]:
        """Return the texts as blocks of Messages."""
        return [text_block(part) for part in self.parts if part.text]


_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,", re.IGNORECASE)

_decoder = msgspec.json.Decoder(list[ChatMessage])


def read_messages(raw: msgspec.Raw) -> list[ChatMessage]:
    """Read the messages; raises `Fault` (400)."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable("messages", error) from error


def marked(block: dict[str, Any], mark: msgspec.Raw) -> dict[str, Any]:
    """Return a block with its mark for the prompt cache, where it has one."""
    return block if bytes(mark) == b"null" else {**block, "cache_control": mark}


def read_data_url(url: str) -> tuple[str, str] | None:
    """Return the media type and the base64 of a `data:` URL; None for another one."""
    found = _DATA_URL.match(url)
    return None if found is None else (found.group(1), url[found.end() :])


def text_block(part: ChatPart) -> dict[str, Any]:
    """Return a text part as a block of Messages, with its mark for the prompt cache."""
    block = {"type": "text", "text": part.text}
    return marked(block, part.cache_control)
