"""The willing model behind OpenAI's Chat Completions, which refuses what OpenAI refuses."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from tests.gateway.anthropic_upstream import walk
from tests.gateway.clients.willing import Deed, Wish, obey
from tests.gateway.told import Asked, Say, sse, stream, whole

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 1},
}

_params: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(
    CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming
)
_names = set(CompletionCreateParamsStreaming.__annotations__) | {
    name for base in CompletionCreateParamsStreaming.__mro__ for name in getattr(base, "__annotations__", {})
}
_KINDS = {"image_url": "image", "input_audio": "audio", "file": "file"}


def say_chat(asked: Asked) -> Say:
    """Answer one request."""
    body = asked.json
    if problem := complaint(body):
        error = {"message": problem, "type": "invalid_request_error", "param": None, "code": "bad"}
        return whole({"error": error}, 400)
    deed = obey(wish(body))
    if body.get("stream"):
        return stream(sse(*chunks(deed, body)), size=37)
    message: dict[str, Any] = {"role": "assistant", "content": deed.text or None, "refusal": None}
    if deed.thought:
        message["reasoning_content"] = deed.thought
    if deed.calls:
        message["tool_calls"] = _calls(deed)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(deed)}
    return whole({**_head(body, "chat.completion"), "choices": [choice], "usage": USAGE})


def complaint(body: Any) -> str | None:
    """Return what OpenAI would have against a request."""
    if unknown := sorted(set(body) - _names):
        return f"Unrecognized request arguments: {unknown}"
    try:
        walk(_params.validate_python(body))
    except pydantic.ValidationError as error:
        return str(error)[:600]
    open_ids: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_ids:
                return "a tool message must follow the call that it answers"
            continue
        open_ids = {call["id"] for call in message.get("tool_calls") or []}
    return None


def wish(body: Any) -> Wish:
    """Read a request."""
    users = [message for message in body["messages"] if message["role"] == "user"]
    parts = users[-1]["content"] if users else ""
    parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
    form = body.get("response_format") or {}
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        choice = choice["function"]["name"]
    stop = body.get("stop") or []
    return Wish(
        text=" ".join(part["text"] for part in parts if part["type"] == "text"),
        tools={tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in _tools(body)},
        choice="any" if choice == "required" else choice,
        schema=form["json_schema"]["schema"] if form.get("type") == "json_schema"
        else True if form.get("type") == "json_object" else None,
        has_results=body["messages"][-1]["role"] == "tool",
        stop=[stop] if isinstance(stop, str) else stop,
        thinks=body.get("reasoning_effort") not in (None, "none"),
        media=[_KINDS[part["type"]] for part in parts if part["type"] in _KINDS],
    )  # fmt: skip


def _tools(body: Any) -> list[Any]:
    return [tool for tool in body.get("tools") or [] if tool["type"] == "function"]


def _calls(deed: Deed) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{number}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
        for number, (name, arguments) in enumerate(deed.calls)
    ]  # fmt: skip


def _finish(deed: Deed) -> str:
    return "tool_calls" if deed.calls else "stop"


def _head(body: Any, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": f"{body['model']}-2026-01-01"}


def chunks(deed: Deed, body: Any) -> list[dict[str, Any]]:
    """Return the stream that says a deed in small pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"reasoning_content": piece} for piece in pieces(deed.thought)]
    deltas += [{"content": piece} for piece in pieces(deed.text)]
    for index, call in enumerate(_calls(deed)):
        arguments = call["function"]["arguments"]
        first = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        more = [{"index": index, "function": {"arguments": piece}} for piece in pieces(arguments)]
        deltas += [{"tool_calls": [piece]} for piece in more]
    head = _head(body, "chat.completion.chunk")
    wants = (body.get("stream_options") or {}).get("include_usage")
    usage = {"usage": None} if wants else {}
    found = [
        {**head, "choices": [{"index": 0, "delta": d, "logprobs": None, "finish_reason": None}], **usage}
        for d in deltas
    ]
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": _finish(deed)}
    found.append({**head, "choices": [last], **usage})
    return [*found, {**head, "choices": [], "usage": USAGE}] if wants else found


def pieces(text: str) -> list[str]:
    """Cut a text as models do."""
    return [text[at : at + 5] for at in range(0, len(text), 5)]
