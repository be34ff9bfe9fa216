"""One answer of an upstream that speaks chat, with thoughts and two calls of a tool; whole and in chunks."""

from __future__ import annotations

from typing import Any

HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-x"}
USAGE = {
    "prompt_tokens": 150,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 100},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 17}'}},
    {"id": "call_2", "type": "function", "function": {"name": "multiply", "arguments": "{}"}},
]
SAID = {"role": "assistant", "content": "It is 391.", "reasoning_content": "Let me see.", "tool_calls": CALLS}


def completion(said: dict[str, Any], finish: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": said, "finish_reason": finish, **more}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    name = {"name": "multiply"} if more else {}
    return chunk({"tool_calls": [{"index": index, "function": {**name, "arguments": arguments}, **more}]})


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Let me "}),
    chunk({"reasoning_content": "see."}),
    chunk({"content": "It is "}),
    chunk({"content": "391."}),
    piece(0, "", id="call_1"),
    piece(0, '{"a":'),
    piece(0, " 17}"),
    piece(1, "{}", id="call_2"),
    chunk({}, "tool_calls"),
    {**HEAD, "choices": [], "usage": USAGE},
]
