"""This module reads and rewrites what earlier calls of tools carried, whichever API wrote them.

Chat Completions keeps arguments as JSON text in `tool_calls` (or `function_call`), Responses in an item's
`arguments`, custom tools in `input`, Messages as an object in the `input` of a `tool_use` part. Only text
values are texts: names of arguments, numbers and identifiers stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

Change = Callable[[str], str]

_ARGUMENTS = "arguments"
_INPUT = "input"
_CALLS = ("function", "custom")


def map_calls(turn: dict[str, Any], change: Change) -> dict[str, Any]:
    """Return a turn with the texts of its calls put through `change`."""
    changed = dict(turn)
    if isinstance(turn.get("tool_calls"), list):
        changed["tool_calls"] = [_map_call(call, change) for call in turn["tool_calls"]]
    if isinstance(turn.get("function_call"), dict):
        changed["function_call"] = _map_text_of(turn["function_call"], change)
    if str(turn.get("type", "")).endswith("_call"):
        changed = _map_text_of(changed, change)
    if isinstance(turn.get("content"), list):
        changed["content"] = [_map_part(part, change) for part in turn["content"]]
    return changed


def texts_of_calls(turn: dict[str, Any]) -> list[str]:
    """Return the texts of a turn's calls, in order."""
    found: list[str] = []

    def take(text: str) -> str:
        found.append(text)
        return text

    map_calls(turn, take)
    return found


def _map_call(call: Any, change: Change) -> Any:
    if not isinstance(call, dict):
        return call
    return {
        name: _map_text_of(value, change) if name in _CALLS and isinstance(value, dict) else value
        for name, value in call.items()
    }


def _map_text_of(holder: dict[str, Any], change: Change) -> dict[str, Any]:
    kept = {name: map_json(holder[name], change) for name in (_ARGUMENTS, _INPUT) if name in holder}
    return {**holder, **kept}


def _map_part(part: Any, change: Change) -> Any:
    if not isinstance(part, dict) or not str(part.get("type", "")).endswith("tool_use"):
        return part
    return {**part, _INPUT: map_values(part.get(_INPUT), change)}


def map_json(value: Any, change: Change) -> Any:
    """Map the text values inside a JSON text; a text that is no JSON is one text, as models write it."""
    if not isinstance(value, str):
        return map_values(value, change)
    try:
        inner = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return change(value)
    if not isinstance(inner, dict | list):
        return change(value)
    mapped = map_values(inner, change)
    return value if mapped == inner else msgspec.json.encode(mapped).decode()


def map_values(value: Any, change: Change) -> Any:
    """Return a value with every text in it put through `change`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_values(item, change) for item in value]
    if isinstance(value, dict):
        return {name: map_values(item, change) for name, item in value.items()}
    return value
