"""This module writes a chat request as one of Gemini's generateContent.

What has a counterpart is translated, what changes an answer and has none is refused by name, hints that
change no answer are left out, and a member that nobody here knows is passed on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.settings_providers import GeminiSettings
from turnout.gateway.translate.chat_messages import read_messages
from turnout.gateway.translate.chat_tools import Function, read_functions
from turnout.gateway.translate.gemini_parts import contents, system_parts
from turnout.gateway.translate.refusal import plain, refuse
from turnout.gateway.translate.rest import CHAT_HINTS, CHAT_NEUTRAL, Rest
from turnout.gateway.wire import Members, number_of

LANGUAGE = "Gemini's generateContent"

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_REST = Rest(
    language=LANGUAGE,
    copied=frozenset(),
    hints=CHAT_HINTS | {"stream_options", "stream", "parallel_tool_calls"},
    neutral=CHAT_NEUTRAL,
    done=frozenset(
        "messages model tools tool_choice response_format reasoning_effort stop max_tokens"
        " max_completion_tokens".split()
    )
    | set(_CONFIG),
)
_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}
_MOST = 32_768


def gemini_request(members: Members, *, candidate: Candidate, settings: GeminiSettings) -> bytes:
    """Return the body; raises `Fault` (400) for what cannot be said."""
    said = read_messages(members["messages"])
    body: dict[str, Any] = {"contents": contents(said, LANGUAGE)}
    if system := system_parts(said):
        body["systemInstruction"] = {"parts": system}
    if functions := read_functions(members, LANGUAGE):
        body["tools"] = [{"functionDeclarations": [_declared(function) for function in functions]}]
        if (choice := _choice(members)) is not None:
            body["toolConfig"] = {"functionCallingConfig": choice}
    config = {theirs: members[ours] for ours, theirs in _CONFIG.items() if _is_there(members, ours)}
    config |= _limits(members, candidate) | _form(members) | _thinking(members, candidate, settings)
    if config:
        body["generationConfig"] = config
    _REST.add(members, body)
    return msgspec.json.encode(body)


def _is_there(members: Members, name: str) -> bool:
    return name in members and bytes(members[name]) != b"null"


def _declared(function: Function) -> dict[str, Any]:
    told: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        told["description"] = function.description
    if bytes(function.parameters) != b"null":
        told["parametersJsonSchema"] = function.parameters
    return told


def _choice(members: Members) -> dict[str, Any] | None:
    choice = plain(members.get("tool_choice"))
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"].get("name")]}
    raise refuse("tool_choice", LANGUAGE, choice)


def _limits(members: Members, candidate: Candidate) -> dict[str, Any]:
    given = [number_of(members, name) for name in ("max_completion_tokens", "max_tokens")]
    limits = [int(number) for number in [*given, candidate.max_output_tokens] if number is not None]
    told: dict[str, Any] = {"maxOutputTokens": min(limits)} if limits else {}
    stop = plain(members.get("stop"))
    if stop:
        told["stopSequences"] = [stop] if isinstance(stop, str) else stop
    return told


def _form(members: Members) -> dict[str, Any]:
    wanted = plain(members.get("response_format"))
    if not isinstance(wanted, dict) or wanted.get("type") == "text":
        return {}
    told: dict[str, Any] = {"responseMimeType": "application/json"}
    schema = wanted.get("json_schema")
    if isinstance(schema, dict) and schema.get("schema") is not None:
        told["responseJsonSchema"] = schema["schema"]
    return told


def _thinking(members: Members, candidate: Candidate, settings: GeminiSettings) -> dict[str, Any]:
    """Return the candidate's effort, or the client's, as a level or as a budget of tokens."""
    effort = candidate.effort or plain(members.get("reasoning_effort"))
    if not isinstance(effort, str):
        return {}
    if settings.thinking_field == "thinkingBudget" or effort == "none":
        return {"thinkingConfig": {"thinkingBudget": _BUDGETS.get(effort, _MOST)}}
    level = {"xhigh": "high", "max": "high"}.get(effort, effort)
    return {"thinkingConfig": {"thinkingLevel": level.upper()}}
