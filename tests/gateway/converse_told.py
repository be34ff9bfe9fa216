"""Answers of an upstream that speaks Bedrock's Converse, with streams that botocore reads."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

USAGE = {
    "inputTokens": 20,
    "outputTokens": 9,
    "totalTokens": 159,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 30,
}
TEXT = "It is 391. caf\u00e9 \U0001f600"
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": "c2lnbmVk"}}}
CALL = {"toolUse": {"toolUseId": "tooluse_1", "name": "multiply", "input": {"a": 17, "b": 23}}}


def answer(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, "metrics": {"latencyMs": 5}}


def frame(kind: str, payload: dict[str, Any], *, message: str = "event") -> bytes:
    """Return one message of an event stream."""
    name = ":event-type" if message == "event" else ":exception-type"
    texts = {name: kind, ":content-type": "application/json", ":message-type": message}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in texts.items()
    )
    body = json.dumps(payload, ensure_ascii=False).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return whole + struct.pack(">I", zlib.crc32(whole))


def delta(index: int, value: dict[str, Any]) -> bytes:
    """Return a piece of a block."""
    return frame("contentBlockDelta", {"contentBlockIndex": index, "delta": value})


def stop(index: int) -> bytes:
    """Return the end of a block."""
    return frame("contentBlockStop", {"contentBlockIndex": index})


FRAMES = [
    frame("messageStart", {"role": "assistant"}),
    delta(0, {"reasoningContent": {"text": "Let me "}}),
    delta(0, {"reasoningContent": {"text": "see."}}),
    delta(0, {"reasoningContent": {"signature": "c2lnbmVk"}}),
    stop(0),
    delta(1, {"text": TEXT[:7]}),
    delta(1, {"text": TEXT[7:]}),
    stop(1),
    frame(
        "contentBlockStart",
        {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "multiply"}}},
    ),
    delta(2, {"toolUse": {"input": '{"a": 17,'}}),
    delta(2, {"toolUse": {"input": ' "b": 23}'}}),
    stop(2),
    frame("messageStop", {"stopReason": "tool_use"}),
    frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}}),
]
STREAM = b"".join(FRAMES)
