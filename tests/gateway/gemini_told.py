"""Answers of an upstream that speaks Gemini's API, which Google's own types accept."""

from __future__ import annotations

import json
from typing import Any

from google.genai import types

USAGE = {
    "promptTokenCount": 150,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 100,
    "totalTokenCount": 159,
}
THOUGHT = {"text": "Let me see.", "thought": True}
CALL = {"functionCall": {"name": "multiply", "args": {"a": 17, "b": 23}}, "thoughtSignature": "c2lnbmVk"}
OTHER = {"functionCall": {"id": "own id", "name": "multiply", "args": {}}}


def answer(*parts: dict[str, Any], finish: str | None = "STOP", usage: Any = USAGE) -> dict[str, Any]:
    """Return one answer, or one chunk of a stream."""
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    told = {
        "candidates": [candidate],
        "responseId": "r1",
        "modelVersion": "gemini-x-001",
        "usageMetadata": usage,
    }
    types.GenerateContentResponse.model_validate(told)
    if finish is None:
        del candidate["finishReason"]
    return told


CHUNKS = [
    answer(THOUGHT, finish=None, usage={"promptTokenCount": 150}),
    answer({"text": "It is "}, finish=None, usage={"promptTokenCount": 150}),
    answer({"text": "391. caf\u00e9 \U0001f600"}, finish=None),
    answer(CALL, finish=None),
    answer(OTHER),
]


def stream_of(*chunks: dict[str, Any]) -> bytes:
    """Return the stream of these chunks; it has no last event."""
    return b"".join(
        b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n" for chunk in chunks
    )
