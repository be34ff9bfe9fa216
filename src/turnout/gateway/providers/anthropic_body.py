"""This module writes the body of a Messages request that comes from a client of Messages."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from turnout.gateway.providers.base import Call
from turnout.gateway.settings_providers import AnthropicSettings
from turnout.gateway.translate.effort import write_effort
from turnout.gateway.translate.refusal import plain
from turnout.gateway.wire import render

_UNSIGNED = re.compile(rb'"signature"\s*:\s*""')
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Turn(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b'""')


class _Block(msgspec.Struct):
    type: str = ""
    signature: str | None = None


def own_body(call: Call, settings: AnthropicSettings) -> bytes:
    """Return the request body: the model's name, effort and budget are written, the rest is copied."""
    members: dict[str, msgspec.Raw | bytes] = dict(call.request.members)
    members["model"] = msgspec.json.encode(call.model)
    candidate = call.candidate
    own = plain(call.request.members.get("max_tokens"))
    limit = candidate.max_output_tokens
    if limit is not None and not (isinstance(own, (int, float)) and own <= limit):
        members["max_tokens"] = str(limit).encode()
    if candidate.effort is not None:
        _set_effort(members, candidate.effort, settings)
    if _UNSIGNED.search(bytes(call.request.members["messages"])):
        members["messages"] = _signed(call.request.members["messages"])
    return render(members)


def _set_effort(members: dict[str, msgspec.Raw | bytes], effort: str, settings: AnthropicSettings) -> None:
    config = plain(bytes(members.get("output_config", b"{}")))
    limit = plain(bytes(members.get("max_tokens", b"null")))
    body: dict[str, Any] = {
        "output_config": config if isinstance(config, dict) else {},
        "max_tokens": limit if isinstance(limit, int) else settings.default_max_tokens,
    }
    write_effort(effort, settings.thinking, body)
    for name in ("output_config", "thinking"):
        if body.get(name):
            members[name] = msgspec.json.encode(body[name])


def _signed(messages: msgspec.Raw) -> bytes:
    """Return the messages without unsigned thoughts: another model's, which this API would refuse."""
    turns = _decode_list(messages)
    return msgspec.json.encode([_without_unsigned(turn) for turn in turns])


def _without_unsigned(turn: msgspec.Raw) -> msgspec.Raw | dict[str, Any]:
    content = msgspec.json.decode(turn, type=_Turn).content
    if not _UNSIGNED.search(bytes(content)) or not bytes(content).lstrip().startswith(b"["):
        return turn
    blocks = _decode_list(content)
    kept = [block for block in blocks if not _is_unsigned(msgspec.json.decode(block, type=_Block))]
    if len(kept) == len(blocks):
        return turn
    return {**msgspec.json.decode(turn, type=dict[str, msgspec.Raw]), "content": kept}


def _is_unsigned(block: _Block) -> bool:
    return block.type == "thinking" and block.signature == ""
