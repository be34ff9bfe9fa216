"""The willing model behind Anthropic's Messages, which refuses what Anthropic refuses."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from anthropic.types import MessageCreateParams
from anthropic.types.message_create_params import MessageCreateParamsBase

from tests.gateway.anthropic_upstream import events, walk
from tests.gateway.clients.willing import Deed, Wish, obey
from tests.gateway.told import Asked, Say, stream, whole

USAGE = {
    "input_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "output_tokens": 7,
}

_params: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(MessageCreateParams)
_names = {*MessageCreateParamsBase.__annotations__, "stream"}


def say_messages(asked: Asked) -> Say:
    """Answer one request."""
    body = asked.json
    if body.get("thread") is not None:
        details = {"error_code": "thread_unsupported_request", "unsupported": ["zero_retention"]}
        error = {"type": "invalid_request_error", "message": "no threads here", "details": details}
        return whole({"type": "error", "error": error, "request_id": "req_1"}, 400)
    if problem := complaint(body):
        error = {"type": "invalid_request_error", "message": problem}
        return whole({"type": "error", "error": error, "request_id": "req_1"}, 400)
    told = _message(obey(wish(body)), body)
    if body.get("stream"):
        return stream(b"".join(events(told, is_usage_repeated=True)), size=37)
    return whole(told)


def complaint(body: Any) -> str | None:
    """Return what Anthropic would have against a request."""
    if unknown := sorted(set(body) - _names):
        return f"{unknown[0]}: Extra inputs are not permitted"
    try:
        walk(_params.validate_python(body))
    except pydantic.ValidationError as error:
        return str(error)[:600]
    awaited: set[str] = set()
    for number, message in enumerate(body["messages"]):
        blocks = _blocks(message)
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results != awaited:
            return (
                f"messages.{number}: tool_result blocks {results} do not answer the tool_use blocks {awaited}"
            )
        if not blocks:
            return f"messages.{number}: all messages must have non-empty content"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return f"messages.{number}: text content blocks must contain non-whitespace text"
        awaited = {block["id"] for block in blocks if block["type"] == "tool_use"}
    return None


def wish(body: Any) -> Wish:
    """Read a request."""
    users = [message for message in body["messages"] if message["role"] == "user"]
    blocks = _blocks(users[-1])
    choice = body.get("tool_choice") or {"type": "auto"}
    form = (body.get("output_config") or {}).get("format") or {}
    # Where the API has no word for JSON, an instruction asks for it.
    by_word = True if "one JSON object" in json.dumps(body.get("system") or "") else None
    thinking = (body.get("thinking") or {"type": "disabled"})["type"]
    return Wish(
        text=" ".join(block["text"] for block in blocks if block["type"] == "text"),
        tools={tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools") or []},
        choice=choice["name"] if choice["type"] == "tool" else choice["type"],
        schema=form.get("schema", by_word),
        has_results=any(block["type"] == "tool_result" for block in blocks),
        stop=body.get("stop_sequences") or [],
        thinks=thinking != "disabled",
        media=[_kind(block) for block in blocks if block["type"] in ("image", "document")],
    )


def _blocks(message: Any) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _kind(block: Any) -> str:
    return "image" if block["type"] == "image" else "file"


def _message(deed: Deed, body: Any) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    if deed.thought:
        blocks.append({"type": "thinking", "thinking": deed.thought, "signature": "c2lnbmVk"})
    if deed.text:
        blocks.append({"type": "text", "text": deed.text})
    blocks += [
        {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(deed.calls)
    ]
    stop = "stop_sequence" if deed.stopped_by else "tool_use" if deed.calls else "end_turn"
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": f"{body['model']}-20260101",
        "content": blocks, "stop_reason": stop, "stop_sequence": deed.stopped_by, "usage": USAGE,
    }  # fmt: skip
