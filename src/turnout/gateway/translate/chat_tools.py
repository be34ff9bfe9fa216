"""This module writes the tools of a chat request, and the choice among them, as Messages has them."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.chat_messages import NULL, marked
from turnout.gateway.translate.refusal import plain, refuse, unreadable
from turnout.gateway.wire import Members

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None
    cache_control: msgspec.Raw = NULL


def tools(raw: msgspec.Raw | None, language: str) -> list[dict[str, Any]]:
    """Return the tools; a schema is copied byte for byte. Raises `Fault` for a tool that is no function."""
    if raw is None or bytes(raw) == b"null":
        return []
    try:
        given = msgspec.json.decode(raw, type=list[_Tool])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable("tools", error) from error
    return [_tool(tool, language) for tool in given]


def _tool(tool: _Tool, language: str) -> dict[str, Any]:
    if tool.function is None:
        raise refuse("tools[].type", language, tool.type)
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        told["description"] = tool.function.description
    schema = tool.function.parameters
    told["input_schema"] = {"type": "object", "properties": {}} if bytes(schema) == b"null" else schema
    if tool.function.strict is not None:
        told["strict"] = tool.function.strict
    return marked(told, tool.cache_control)


def tool_choice(members: Members, language: str) -> dict[str, Any] | None:
    """Return the choice, None where the client leaves it open. Raises `Fault` for one without counterpart."""
    choice = plain(members.get("tool_choice"))
    told: dict[str, Any] | None = None
    if isinstance(choice, str) and choice in _CHOICES:
        told = {"type": _CHOICES[choice]}
    elif isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        told = {"type": "tool", "name": choice["function"].get("name")}
    elif choice is not None:
        raise refuse("tool_choice", language, choice)
    if plain(members.get("parallel_tool_calls")) is False and (told is None or told["type"] != "none"):
        told = {**(told or {"type": "auto"}), "disable_parallel_tool_use": True}
    return told
