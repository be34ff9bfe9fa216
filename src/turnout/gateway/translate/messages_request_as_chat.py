"""This module writes a request of Anthropic's Messages as a chat request.

Thoughts of earlier turns are left out: only the model that signed them can read them. Results of tools come
before what the user adds; their images, which chat's tools cannot return, follow in a message of the user's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.messages_turns import system_message, turns
from turnout.gateway.translate.refusal import plain, refuse
from turnout.gateway.translate.rest import Rest, read_list
from turnout.gateway.wire import Members

LANGUAGE = "OpenAI's chat"

_REST = Rest(
    language=LANGUAGE,
    copied=frozenset({"temperature", "top_p", "stream", "model"}),
    hints=frozenset(
        "thinking cache_control service_tier context_management speed diagnostics metadata compaction"
        " billing_policy fallbacks fallback_credit_token".split()
    ),
    neutral={"mcp_servers": ([],), "container": (), "inference_geo": (), "thread": ()},
    done=frozenset("system messages tools tool_choice max_tokens stop_sequences output_config".split()),
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


def chat_request(members: Members) -> bytes:
    """Return the body; raises `Fault` (400) for what chat cannot say."""
    body: dict[str, Any] = {"messages": [*system_message(members), *turns(members, LANGUAGE)]}
    if tools := read_list(members, "tools", _Tool):
        body["tools"] = [_tool(tool) for tool in tools]
        _choose(members, body)
    if "max_tokens" in members:
        body["max_completion_tokens"] = members["max_tokens"]
    if plain(members.get("stop_sequences")):
        body["stop"] = members["stop_sequences"]
    metadata = plain(members.get("metadata"))
    if isinstance(metadata, dict) and metadata.get("user_id"):
        body["user"] = metadata["user_id"]
    _configure(members, body)
    _REST.add(members, body)
    return msgspec.json.encode(body)


def _tool(tool: _Tool) -> dict[str, Any]:
    if tool.type not in (None, "custom") or bytes(tool.input_schema) == b"null":
        raise refuse("tools[].type", LANGUAGE, tool.type)
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choose(members: Members, body: dict[str, Any]) -> None:
    choice = plain(members.get("tool_choice"))
    if not isinstance(choice, dict):
        return
    kind = choice.get("type")
    if kind == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(kind, str) and kind in _CHOICES:
        body["tool_choice"] = _CHOICES[kind]
    else:
        raise refuse("tool_choice", LANGUAGE, choice)
    if choice.get("disable_parallel_tool_use") is True:
        body["parallel_tool_calls"] = False


def _configure(members: Members, body: dict[str, Any]) -> None:
    """Write the form of the answer and the effort that the client asks for."""
    config = plain(members.get("output_config"))
    if not isinstance(config, dict):
        return
    if isinstance(config.get("effort"), str):
        body["reasoning_effort"] = config["effort"]
    form = config.get("format")
    if isinstance(form, dict):
        schema = {"name": "answer", "schema": form.get("schema"), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
