"""This module writes a chat request as one of Anthropic's Messages.

What has a counterpart is translated, what changes an answer and has none is refused by name, hints that
change no answer are left out, and a member that neither list knows is passed on: it may be Anthropic's own.
System messages are gathered into `system` wherever they stand.
"""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.settings_providers import AnthropicSettings
from turnout.gateway.translate.chat_messages import ChatMessage, read_messages
from turnout.gateway.translate.chat_tools import tool_choice, tools
from turnout.gateway.translate.effort import write_effort
from turnout.gateway.translate.json_form import form_of
from turnout.gateway.translate.messages_blocks import turns
from turnout.gateway.translate.refusal import plain
from turnout.gateway.translate.rest import CHAT_HINTS, CHAT_NEUTRAL, Rest
from turnout.gateway.wire import Members, number_of

LANGUAGE = "Anthropic's Messages"

_REST = Rest(
    language=LANGUAGE,
    copied=frozenset({"temperature", "top_p", "stream"}),
    hints=CHAT_HINTS | {"seed", "stream_options"},
    neutral={
        **CHAT_NEUTRAL,
        "n": (1,),
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
    },
    done=frozenset(
        "messages model tools tool_choice parallel_tool_calls response_format reasoning_effort stop "
        "max_tokens max_completion_tokens".split()
    ),
)


def messages_request(
    members: Members, *, model: str, candidate: Candidate, settings: AnthropicSettings
) -> bytes:
    """Return the body; raises `Fault` (400) for what cannot be said."""
    body = messages_body(
        members,
        model=model,
        candidate=candidate,
        default_max_tokens=settings.default_max_tokens,
        thinking=settings.thinking,
    )
    return msgspec.json.encode(body)


def messages_body(
    members: Members, *, model: str, candidate: Candidate, default_max_tokens: int | None, thinking: str
) -> dict[str, Any]:
    """Return the body as members; raises `Fault` (400) for what cannot be said.

    `thinking` says how an effort is written (`write_effort`).
    """
    said = read_messages(members["messages"])
    limit = _limit(members, candidate, default_max_tokens)
    body: dict[str, Any] = {"model": model}
    if limit is not None:
        body["max_tokens"] = limit
    if system := _system(said):
        body["system"] = system
    body["messages"] = turns(said, LANGUAGE)
    if given := tools(members, LANGUAGE):
        body["tools"] = given
        if (choice := tool_choice(members, LANGUAGE)) is not None:
            body["tool_choice"] = choice
    _format(members, body)
    _effort(members, candidate, thinking, body)
    stop = plain(members.get("stop"))
    if stop:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = plain(members.get("safety_identifier")) or plain(members.get("user"))
    if user:
        body["metadata"] = {"user_id": user}
    _REST.add(members, body)
    return body


def _limit(members: Members, candidate: Candidate, default: int | None) -> int | None:
    given = [number_of(members, name) for name in ("max_completion_tokens", "max_tokens")]
    limits = [int(number) for number in [*given, candidate.max_output_tokens] if number is not None]
    return min(limits) if limits else default


def _system(said: list[ChatMessage]) -> str | list[dict[str, Any]] | None:
    """Return the system prompt: a text where one message said it plainly, else blocks."""
    own = [message for message in said if message.role in ("system", "developer")]
    if len(own) == 1 and isinstance(own[0].content, str):
        return own[0].content
    return [block for message in own for block in message.text_blocks()] or None


def _format(members: Members, body: dict[str, Any]) -> None:
    form = form_of(members, LANGUAGE)
    if form is None:
        return
    if form.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": form.schema}}
        return
    system = body.get("system")
    if isinstance(system, list):
        body["system"] = [*system, {"type": "text", "text": form.instruction}]
    else:
        body["system"] = f"{system}\n\n{form.instruction}" if system else form.instruction


def _effort(members: Members, candidate: Candidate, thinking: str, body: dict[str, Any]) -> None:
    """Write the candidate's effort, or the client's; `none` switches thinking off."""
    effort = candidate.effort or plain(members.get("reasoning_effort"))
    if not isinstance(effort, str):
        return
    write_effort(effort, thinking, body)
