"""This module writes a whole answer of Anthropic's Messages as a chat completion."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from turnout.gateway.translate.json_form import object_in
from turnout.gateway.translate.words import FINISH_OF_STOP, chat_usage, counts_of


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[msgspec.Raw]
    stop_reason: Any = None
    stop_sequence: str | None = None
    usage: Any = None


_decoder = msgspec.json.Decoder(_Message)
_block_decoder = msgspec.json.Decoder(_Block)


def chat_completion(body: bytes, *, only_object: bool = False) -> bytes:
    """Return the completion; raises `msgspec.DecodeError` or `UnicodeDecodeError` for a body that is none.

    With `only_object`, what stands around a JSON object is left out. Thinking is told as
    `reasoning_content`, and as `thinking_blocks` with its signatures: a client that sends these back with the
    tool results lets the model go on from its own thoughts.
    """
    told = _decoder.decode(body)
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    texts, thoughts, kept, calls = [], [], [], []
    for raw in told.content:
        block = _block_decoder.decode(raw)
        if block.type == "text":
            texts.append(block.text)
        elif block.type in ("thinking", "redacted_thinking"):
            thoughts.append(block.thinking)
            kept.append(raw)
        elif block.type == "tool_use":
            calls.append(tool_call(block.id, block.name, bytes(block.input).decode()))
    if texts or not calls:
        message["content"] = object_in("".join(texts)) if only_object else "".join(texts)
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if kept:
        message["thinking_blocks"] = kept
    if calls:
        message["tool_calls"] = calls
    finish = FINISH_OF_STOP.get(str(told.stop_reason or "end_turn"), "stop")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    if told.stop_sequence is not None:
        choice["stop_reason"] = told.stop_sequence
    head = {"id": told.id, "object": "chat.completion", "created": int(time.time()), "model": told.model}
    return msgspec.json.encode({**head, "choices": [choice], "usage": chat_usage(counts_of(told.usage))})


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a call as chat has it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
