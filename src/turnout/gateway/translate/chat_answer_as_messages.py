"""This module writes a whole chat answer, or an error, as Anthropic's Messages have it."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Fault, Reply
from turnout.gateway.translate.chat_said import texts_of
from turnout.gateway.translate.messages_blocks import tool_input
from turnout.gateway.translate.words import STOP_OF_FINISH, counts_of, messages_error, messages_usage


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    id: str
    function: _Function


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: Any = None
    stop_reason: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str = ""
    model: str = ""
    usage: Any = None


_decoder = msgspec.json.Decoder(_Completion)


def messages_reply(reply: Reply, upstream: str) -> Reply:
    """Return the reply as a message or an error; raises `Fault` for a 200 that is no completion."""
    if reply.status != 200:
        return Reply(
            status=reply.status, headers=reply.headers, body=messages_error(reply.body, reply.status)
        )
    try:
        completion = _decoder.decode(reply.body)
        choice = completion.choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError) as error:
        raise no_completion(upstream, error) from error
    blocks = _blocks(choice.message, completion.id)
    body = {
        "id": message_id(completion.id),
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": blocks,
        **stop(choice.finish_reason, choice.stop_reason, has_calls=any("input" in block for block in blocks)),
        "usage": messages_usage(counts_of(completion.usage)),
    }
    return Reply(status=200, headers=reply.headers, body=msgspec.json.encode(body))


def _blocks(message: _Message, answer_id: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    text, thoughts = texts_of(message.content)
    if thoughts := message.reasoning_content or message.reasoning or thoughts:
        # Nobody signed them; when they come back, they are left out again.
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    if text := text or message.refusal or "":
        blocks.append({"type": "text", "text": text})
    calls = message.tool_calls or []
    if message.function_call is not None and not calls:
        calls = [_Call(id=f"call_{answer_id}", function=message.function_call)]
    for call in calls:
        given = tool_input(call.function.arguments)
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
    return blocks


def message_id(chat_id: str) -> str:
    """Return an id that looks like one of Messages and still names the completion."""
    return chat_id if chat_id.startswith("msg_") else f"msg_{chat_id}"


def stop(finish: Any, matched: Any, *, has_calls: bool) -> dict[str, str | None]:
    """Return why the answer ended, and at which stop sequence where the upstream says so, as vLLM does.

    Some servers say `stop` after calls of tools; an agent would leave them undone.
    """
    if has_calls and finish not in ("length", "content_filter"):
        finish = "tool_calls"
    if finish == "stop" and isinstance(matched, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": STOP_OF_FINISH.get(str(finish or "stop"), "end_turn"), "stop_sequence": None}


def no_completion(upstream: str, error: Exception) -> Fault:
    """Return the fault of a 200 that cannot be translated."""
    message = sentence(
        f"the upstream {upstream!r} answered 200 without a completion",
        allowed="an object with 'choices'",
        got=str(error),
        do="check that its base_url is the API that its kind says",
    )
    api_error = ApiError(502, message, code="upstream_error", kind="upstream_error")
    return Fault(api_error, is_charge_unknown=True)
