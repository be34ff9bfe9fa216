"""This module writes the body that an upstream gets: the client's, with what the candidate sets."""

from __future__ import annotations

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.providers.base import Call
from turnout.gateway.settings_providers import OpenAIBodySettings
from turnout.gateway.wire import number_of, render, with_usage

_LIMITS = ("max_completion_tokens", "max_tokens")


def upstream_body(call: Call, settings: OpenAIBodySettings) -> bytes:
    """Return the request body: the model's name, effort and budget are written, the rest is copied.

    The client's own token limit stays where it is the smaller one.
    """
    members: dict[str, msgspec.Raw | bytes] = dict(call.request.members)
    members["model"] = msgspec.json.encode(call.model)
    candidate = call.candidate
    if candidate.effort is not None:
        members["reasoning_effort"] = msgspec.json.encode(candidate.effort)
    if candidate.max_output_tokens is not None:
        _set_limit(members, candidate.max_output_tokens, settings.max_tokens_field)
    if call.request.is_translated and "max_completion_tokens" in members:
        members[settings.max_tokens_field] = members.pop("max_completion_tokens")
    if call.request.is_stream and settings.ask_usage and call.takes_usage and not call.request.asks_usage:
        members = with_usage(members)
    return render(members)


def responses_body(call: Call) -> bytes:
    """Return the body of a request of Responses: model, effort and budget are written, the rest is copied."""
    members: dict[str, msgspec.Raw | bytes] = dict(call.request.members)
    members["model"] = msgspec.json.encode(call.model)
    candidate = call.candidate
    if candidate.effort is not None:
        reasoning = _members(members, "reasoning")
        members["reasoning"] = render({**reasoning, "effort": msgspec.json.encode(candidate.effort)})
    if candidate.max_output_tokens is not None:
        own = number_of(members, "max_output_tokens")
        if own is None or own > candidate.max_output_tokens:
            members["max_output_tokens"] = str(candidate.max_output_tokens).encode()
    return render(members)


def named_body(call: Call) -> bytes:
    """Return the body of a request in which only the model's name is written."""
    return render({**call.request.members, "model": msgspec.json.encode(call.model)})


def upstream_model(candidate: Candidate, settings: OpenAIBodySettings) -> str:
    """Return the upstream's name for a candidate; an adapter is written as the settings say."""
    if candidate.adapter is None:
        return candidate.model
    return settings.adapter_model.replace("{model}", candidate.model).replace("{adapter}", candidate.adapter)


def _set_limit(members: dict[str, msgspec.Raw | bytes], limit: int, default_field: str) -> None:
    given = [name for name in _LIMITS if number_of(members, name) is not None]
    for name in given or [default_field]:
        own = number_of(members, name)
        if own is None or own > limit:
            members[name] = str(limit).encode()


def _members(members: dict[str, msgspec.Raw | bytes], name: str) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(members.get(name, b"{}"), type=dict[str, msgspec.Raw] | None) or {}
    except msgspec.DecodeError:
        return {}
