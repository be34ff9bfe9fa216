"""This module puts every text that a request carries through a change, whichever API it came in.

Texts are all values that a person or a program may have written: messages with the name of who wrote them,
instructions, predicted output, documents, earlier calls of tools and their results, definitions of tools and
schemas, metadata, and what names the user. Kept are words of the protocol, identifiers, links and media, what
is signed or sealed, credentials for other servers, numbers, and the names of members.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from turnout.gateway.conversation import decode_value, items_of
from turnout.gateway.conversation_calls import map_json, map_values
from turnout.gateway.wire import Members

Change = Callable[[str], str]

_WORDS = ("type", "role", "model", "format", "media_type", "pattern")
_IDENTIFIERS = (
    "id", "call_id", "tool_call_id", "tool_use_id", "item_id", "file_id", "file_ids", "container",
    "container_id", "conversation", "previous_response_id", "vector_store_ids",
)  # fmt: skip
_MEDIA = ("url", "image_url", "file_url", "file_data", "server_url", "b64_json")
_SEALED = ("signature", "encrypted_content", "encrypted_index", "thinking")
_CREDENTIALS = ("authorization", "authorization_token", "headers")
KEPT = frozenset((*_WORDS, *_IDENTIFIERS, *_MEDIA, *_SEALED, *_CREDENTIALS))
"""Members whose values stay as they are, at any depth."""

_HANDLES = ("user", "safety_identifier", "prompt_cache_key")
"""Members that name somebody: what is put there instead has letters, digits, `_`, `-` and `.` alone."""
_FREE = ("arguments", "input", "metadata")
"""Members whose values are the client's own throughout: what is called `id` there may be anything."""
_NO_HANDLE = re.compile(r"[^\w.-]+")


def map_texts(members: Members, change: Change) -> Members:
    """Return the members with every text put through `change`; a turn that stays the same keeps its bytes."""
    changed = dict(members)
    for name, raw in members.items():
        if name in KEPT or b'"' not in bytes(raw):
            continue
        # The input of a request is no input of a tool.
        own = "" if name == "input" else name
        items = items_of(members, name)
        if items:
            mapped = [_mapped(item, own, change) for item in items]
            changed[name] = msgspec.Raw(b"[" + b",".join(bytes(item) for item in mapped) + b"]")
        else:
            changed[name] = _mapped(raw, own, change)
    return changed


def without_twins(members: Members) -> Members:
    """Return the members as they are read: of what an object has twice, the last, which the others go by.

    Rules read a request and the upstream gets its bytes. Were a name there twice, an upstream that goes by
    the first one would read what no rule has seen. Raises `RecursionError`.
    """
    changed = {
        name: msgspec.Raw(msgspec.json.encode(decode_value(raw)))
        for name, raw in members.items()
        if _has_twins(raw)
    }
    return {**members, **changed} if changed else members


def _mapped(raw: msgspec.Raw, name: str, change: Change) -> msgspec.Raw:
    value = decode_value(raw)
    new = _walk(value, name, {}, change)
    if new == value:
        return raw
    return msgspec.Raw(msgspec.json.encode(new))


def _has_twins(raw: msgspec.Raw) -> bool:
    """Whether an object has a member twice: its bytes hold a value that nobody has looked at."""
    if b"{" not in bytes(raw):
        return False

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1 and len({name for name, _ in pairs}) < len(pairs):
            raise _TwinsError

    try:
        json.JSONDecoder(object_pairs_hook=look).decode(bytes(raw).decode("utf-8", "surrogatepass"))
    except (_TwinsError, ValueError, RecursionError):
        return True
    return False


class _TwinsError(Exception):
    pass


def _walk(value: Any, name: str, holder: Mapping[str, Any], change: Change) -> Any:
    """Return the value of the member `name` of `holder` with its texts changed."""
    if name == "headers" or (name in KEPT and not isinstance(value, dict)) or name.startswith("$"):
        return value
    if isinstance(value, str):
        return _text(value, name, holder, change)
    if isinstance(value, list):
        return [_walk(item, name, holder, change) for item in value]
    if not isinstance(value, dict):
        return value
    if name in _FREE:
        return map_values(value, change)
    return {inner: _walk(one, inner, value, change) for inner, one in value.items()}


def _text(value: str, name: str, holder: Mapping[str, Any], change: Change) -> str:
    if name == "data" and holder.get("type") != "text":
        return value  # an image or a sound; a document of plain text says `text`
    if name in _HANDLES or (name == "name" and "role" in holder):
        new = change(value)
        return value if new == value else _NO_HANDLE.sub("_", new).strip("_")
    if name == "name":
        return value  # of a tool or a schema
    return map_json(value, change) if name in _FREE else change(value)
