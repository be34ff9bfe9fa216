"""This module writes the turns of a chat as content blocks of Anthropic's Messages."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.chat_messages import ChatMessage, ChatPart, marked, read_data_url, text_block
from turnout.gateway.translate.refusal import NOTHING, refuse

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

Block = dict[str, Any] | msgspec.Raw


def turns(said: list[ChatMessage], language: str) -> list[dict[str, Any]]:
    """Return the messages but the system's; neighbours of one role become one message.

    The results of several tools must stand in one message, before anything the user adds. Raises `Fault` for
    what OpenAI answers and others do not: a request that says nothing but instructions.
    """
    found: list[dict[str, Any]] = []
    for message in said:
        if message.role in ("system", "developer"):
            continue
        role, blocks = _blocks(message, language)
        if not blocks:
            continue
        if found and found[-1]["role"] == role:
            found[-1]["content"].extend(blocks)
        else:
            found.append({"role": role, "content": blocks})
    if not found:
        raise refuse("messages", language, NOTHING)
    return found


def _blocks(message: ChatMessage, language: str) -> tuple[str, list[Block]]:
    if message.role == "user":
        return "user", [_block(part, language) for part in message.parts if part.text != ""]
    if message.role == "tool":
        return "user", [_result(message, language)]
    if message.role == "assistant":
        return "assistant", _assistant(message, language)
    raise refuse("messages[].role", language, message.role)


def _assistant(message: ChatMessage, language: str) -> list[Block]:
    blocks: list[Block] = list(message.thinking_blocks or [])
    blocks += [_block(part, language) for part in message.parts if part.text != ""]
    if message.refusal and not message.parts:
        blocks.append({"type": "text", "text": message.refusal})
    for call in message.tool_calls or []:
        if call.function is None:
            raise refuse("messages[].tool_calls[].type", language, call.type)
        given = tool_input(call.function.arguments)
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
    return blocks


def tool_input(arguments: str) -> msgspec.Raw | dict[str, Any]:
    """Return a call's arguments as the object they spell, byte for byte; what spells none is kept as text."""
    try:
        _object_decoder.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"arguments": arguments}
    return msgspec.Raw((arguments or "{}").encode())


def _result(message: ChatMessage, language: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id or ""}
    if isinstance(message.content, list):
        block["content"] = [_block(part, language) for part in message.content]
    elif message.content:
        block["content"] = message.content
    return marked(block, message.cache_control)


def _block(part: ChatPart, language: str) -> Block:
    if part.text is not None:
        return text_block(part)
    if part.type == "refusal":
        return {"type": "text", "text": part.refusal or ""}
    block: dict[str, Any]
    if part.image_url is not None:
        block = {"type": "image", "source": _source(part.image_url.url)}
    elif part.file is not None and part.file.file_id is not None:
        block = {"type": "document", "source": {"type": "file", "file_id": part.file.file_id}}
    elif part.file is not None and part.file.file_data is not None:
        block = {"type": "document", "source": _source(part.file.file_data)}
        if part.file.filename:
            block["title"] = part.file.filename
    else:
        raise refuse("messages[].content[].type", language, part.type)
    return marked(block, part.cache_control)


def _source(url: str) -> dict[str, Any]:
    """Return where an image or a document comes from; a `data:` URL is taken apart, its bytes stay base64."""
    found = read_data_url(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found[0], "data": found[1]}
