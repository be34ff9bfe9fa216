"""This module writes a whole chat answer as a response of OpenAI's; errors are the same in both."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.providers.base import Reply
from turnout.gateway.translate.chat_answer_as_messages import no_completion
from turnout.gateway.translate.chat_said import calls_of, said_of
from turnout.gateway.translate.responses_items import (
    call_item,
    ended,
    frame,
    left_off,
    logprobs_of,
    message_item,
    reasoning_item,
    text_part,
    wants_thoughts,
)
from turnout.gateway.wire import ChatRequest

_UNREADABLE = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
)


def responses_reply(reply: Reply, request: ChatRequest, upstream: str) -> Reply:
    """Return the reply as a response or an error; raises `Fault` for a 200 that is no completion."""
    if reply.status != 200:
        return reply
    try:
        completion = msgspec.json.decode(reply.body, type=dict[str, Any])
        choice = completion["choices"][0]
        output = _items(choice, str(completion.get("id", "")), wants_thoughts(request))
    except _UNREADABLE as error:
        raise no_completion(upstream, error) from error
    body = ended(frame(request, completion), output, choice.get("finish_reason"), completion.get("usage"))
    return Reply(status=200, headers=reply.headers, body=msgspec.json.encode(body))


def _items(choice: dict[str, Any], answer_id: str, is_sealed: bool) -> list[dict[str, Any]]:
    message, items = choice["message"], list[dict[str, Any]]()
    text, thoughts = said_of(message)
    blocks = message.get("thinking_blocks") if is_sealed else None
    if thoughts or blocks:
        items.append(reasoning_item(0, answer_id, thoughts, blocks))
    part: dict[str, Any] | None = None
    if text:
        part = text_part(text, message.get("annotations") or [], logprobs_of(choice))
    elif message.get("refusal"):
        part = {"type": "refusal", "refusal": message["refusal"]}
    if part is not None:
        items.append(message_item(len(items), answer_id, part))
    for call in calls_of(message, answer_id):
        tool, word = (call["custom"], "input") if call.get("custom") else (call["function"], "arguments")
        told = {"call_id": call["id"], "name": tool["name"], word: tool.get(word) or ""}
        items.append(call_item(len(items), answer_id, told, "completed"))
    return [*items[:-1], left_off(items[-1], choice.get("finish_reason"))] if items else items
