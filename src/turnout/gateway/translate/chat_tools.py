"""This module writes the tools of a chat request, and the choice among them, as Messages has them."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.chat_messages import NULL, marked
from turnout.gateway.translate.refusal import plain, refuse
from turnout.gateway.translate.rest import read_list
from turnout.gateway.wire import Members

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: Function | None = None
    cache_control: msgspec.Raw = NULL


def tools(members: Members, language: str) -> list[dict[str, Any]]:
    """Return the tools; a schema is copied byte for byte. Raises `Fault` for a tool that is no function."""
    return [_told(tool, _function(tool, language)) for tool in read_list(members, "tools", _Tool)]


def read_functions(members: Members, language: str) -> list[Function]:
    """Return the functions among which the model may choose; raises `Fault` for a tool that is none."""
    return [_function(tool, language) for tool in read_list(members, "tools", _Tool)]


def _function(tool: _Tool, language: str) -> Function:
    if tool.function is None:
        raise refuse("tools[].type", language, tool.type)
    return tool.function


def _told(tool: _Tool, function: Function) -> dict[str, Any]:
    told: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        told["description"] = function.description
    schema = function.parameters
    told["input_schema"] = {"type": "object", "properties": {}} if bytes(schema) == b"null" else schema
    if function.strict is not None:
        told["strict"] = function.strict
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
