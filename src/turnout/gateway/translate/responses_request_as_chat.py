"""This module writes a request of OpenAI's Responses as a chat request.

What the API keeps on its server has no counterpart: an earlier response, a conversation, a stored prompt, a
reference to an item. Tools that the server itself runs have none either. Hints that change no answer are left
out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.translate.refusal import plain, refuse
from turnout.gateway.translate.responses_turns import turns
from turnout.gateway.translate.rest import Rest, read_list
from turnout.gateway.wire import Members

LANGUAGE = "OpenAI's chat"

_REST = Rest(
    language=LANGUAGE,
    copied=frozenset(
        "temperature top_p stream model parallel_tool_calls user safety_identifier prompt_cache_key".split()
    ),
    hints=frozenset(
        "store metadata include truncation service_tier stream_options max_tool_calls moderation"
        " prompt_cache_options prompt_cache_retention context_management".split()
    ),
    neutral={"background": (False,), "conversation": (), "previous_response_id": (), "prompt": ()},
    done=frozenset(
        "input instructions tools tool_choice max_output_tokens text reasoning top_logprobs".split()
    ),
)
_LOGPROBS = "message.output_text.logprobs"


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None
    format: dict[str, Any] | None = None


def chat_request(members: Members) -> bytes:
    """Return the body; raises `Fault` (400) for what chat cannot say."""
    body: dict[str, Any] = {"messages": turns(members, LANGUAGE)}
    if not body["messages"]:
        raise refuse("input", LANGUAGE, bytes(members.get("input", b"null")))
    if tools := read_list(members, "tools", _Tool):
        body["tools"] = [_tool(tool) for tool in tools]
        _choose(members, body)
    if plain(members.get("max_output_tokens")) is not None:
        body["max_completion_tokens"] = members["max_output_tokens"]
    _configure(members, body)
    _REST.add(members, body)
    return msgspec.json.encode(body)


def _tool(tool: _Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        told["description"] = tool.description
    if tool.type == "function":
        if bytes(tool.parameters) != b"null":
            told["parameters"] = tool.parameters
        if tool.strict is not None:
            told["strict"] = tool.strict
    elif tool.type == "custom":
        if tool.format is not None:
            told["format"] = _grammar(tool.format)
    else:
        raise refuse("tools[].type", LANGUAGE, tool.type)
    return {"type": tool.type, tool.type: told}


def _grammar(form: dict[str, Any]) -> dict[str, Any]:
    if form.get("type") != "grammar":
        return form
    return {"type": "grammar", "grammar": {name: form.get(name) for name in ("syntax", "definition")}}


def _choose(members: Members, body: dict[str, Any]) -> None:
    choice = plain(members.get("tool_choice"))
    if choice is None or isinstance(choice, str):
        if choice is not None:
            body["tool_choice"] = choice
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or kind not in ("function", "custom", "allowed_tools"):
        raise refuse("tool_choice", LANGUAGE, choice)
    if kind != "allowed_tools":
        body["tool_choice"] = {"type": kind, kind: {"name": choice.get("name")}}
        return
    allowed = [tool for tool in choice.get("tools") or [] if isinstance(tool, dict)]
    if any(tool.get("type") not in ("function", "custom") for tool in allowed):
        raise refuse("tool_choice", LANGUAGE, choice)
    # Chat servers other than OpenAI's own do not know this choice; leaving the others out says the same.
    names = {tool.get("name") for tool in allowed}
    body["tools"] = [tool for tool in body["tools"] if tool[tool["type"]]["name"] in names]
    body["tool_choice"] = choice.get("mode", "auto")


def _configure(members: Members, body: dict[str, Any]) -> None:
    """Write the form of the answer, its length in words, the effort, and whether chances are told."""
    text = plain(members.get("text"))
    if isinstance(text, dict):
        if text.get("verbosity") is not None:
            body["verbosity"] = text["verbosity"]
        form = text.get("format")
        if isinstance(form, dict) and form.get("type") == "json_schema":
            schema = {name: value for name, value in form.items() if name != "type" and value is not None}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif isinstance(form, dict) and form.get("type") == "json_object":
            body["response_format"] = form
        elif isinstance(form, dict) and form.get("type") != "text":
            raise refuse("text.format", LANGUAGE, form)
    reasoning = plain(members.get("reasoning"))
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]
    include, num = plain(members.get("include")), plain(members.get("top_logprobs"))
    if num or (isinstance(include, list) and _LOGPROBS in include):
        body["logprobs"] = True
        if num is not None:
            body["top_logprobs"] = num
