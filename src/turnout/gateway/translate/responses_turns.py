"""This module writes the items of OpenAI's Responses as chat messages.

What the assistant says and calls in one turn are several items and one message. Reasoning is left out, unless
it carries the signed thoughts of a model that needs them back (`seal_thoughts`). Results of tools are texts
in chat and follow each other, so their images come behind the last of them, in a message of the user's.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from turnout.gateway.translate.refusal import refuse, unreadable
from turnout.gateway.wire import Members

_SEAL = "turnout:"
_NULL = msgspec.Raw(b"null")
_TEXTS = ("input_text", "output_text", "text")
_CALLS = {"function_call": "function", "custom_tool_call": "custom"}
_RESULTS = ("function_call_output", "custom_tool_call_output")


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: msgspec.Raw = _NULL


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    content: str | list[_Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    input: str = ""
    output: str | list[_Part] = ""
    encrypted_content: str | None = None


_decoder = msgspec.json.Decoder(str | list[_Item] | None)


def turns(members: Members, language: str) -> list[dict[str, Any]]:
    """Return the messages; raises `Fault` for an item that chat does not know."""
    try:
        given = _decoder.decode(members.get("input", _NULL)) or []
        instructions = msgspec.json.decode(members.get("instructions", _NULL), type=str | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable("input", error) from error
    items = [_Item(role="user", content=given)] if isinstance(given, str) else given
    found: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    media: list[dict[str, Any]] = []
    for item in items:
        if item.type in _RESULTS:
            found.append(_result(item, media, language))
            continue
        if media:
            found.append({"role": "user", "content": media})
            media = []
        _add(item, found, language)
    return [*found, {"role": "user", "content": media}] if media else found


def _add(item: _Item, found: list[dict[str, Any]], language: str) -> None:
    if item.type in _CALLS:
        kind = _CALLS[item.type]
        given = {"arguments": item.arguments} if kind == "function" else {"input": item.input}
        call = {"id": item.call_id, "type": kind, kind: {"name": item.name, **given}}
        _assistant(found).setdefault("tool_calls", []).append(call)
    elif item.type == "reasoning":
        if thoughts := open_thoughts(item.encrypted_content):
            _assistant(found)["thinking_blocks"] = thoughts
    elif item.type != "message":
        raise refuse("input[].type", language, item.type)
    elif item.role == "assistant":
        said = _assistant(found)
        said["content"] = (said["content"] or "") + _text(item.content, language)
    elif item.role in ("system", "developer"):
        found.append({"role": "system", "content": _text(item.content, language)})
    else:
        found.append({"role": item.role or "user", "content": _content(item.content, language)})


def _assistant(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message at the end; items of one turn are neighbours."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": None})
    return found[-1]


def _result(item: _Item, media: list[dict[str, Any]], language: str) -> dict[str, Any]:
    """Return a result as a text; what is none is added to `media`."""
    content = item.output
    if not isinstance(content, str):
        media += [_part(part, language) for part in content if part.type not in _TEXTS]
        content = "\n".join(part.text for part in content if part.type in _TEXTS)
    return {"role": "tool", "tool_call_id": item.call_id, "content": content}


def _text(content: str | list[_Part] | None, language: str) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.type not in (*_TEXTS, "refusal"):
            raise refuse("input[].content[].type", language, part.type)
    return "".join(part.text or part.refusal for part in content)


def _content(content: str | list[_Part] | None, language: str) -> str | list[dict[str, Any]]:
    return [_part(part, language) for part in content] if isinstance(content, list) else content or ""


def _part(part: _Part, language: str) -> dict[str, Any]:
    if part.type in _TEXTS:
        return {"type": "text", "text": part.text}
    if part.type == "input_image" and part.image_url is not None:
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    if part.type == "input_audio" and bytes(part.input_audio) != b"null":
        return {"type": "input_audio", "input_audio": part.input_audio}
    if part.type == "input_file" and (part.file_id or part.file_data):
        file = {"file_id": part.file_id, "file_data": part.file_data, "filename": part.filename}
        return {"type": "file", "file": {name: value for name, value in file.items() if value is not None}}
    raise refuse("input[].content[].type", language, part.type)


def seal_thoughts(blocks: list[Any]) -> str:
    """Return the signed thoughts of an answer as the encrypted content of a reasoning item."""
    return _SEAL + base64.b64encode(msgspec.json.encode(blocks)).decode()


def open_thoughts(sealed: str | None) -> list[Any] | None:
    """Return the thoughts again; None of what was not sealed here."""
    if sealed is None or not sealed.startswith(_SEAL):
        return None
    try:
        return msgspec.json.decode(base64.b64decode(sealed.removeprefix(_SEAL)), type=list[Any])
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, RecursionError):
        return None
