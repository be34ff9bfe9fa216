"""The willing model behind OpenAI's Responses, which refuses what OpenAI refuses."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from openai.types.responses import response_create_params as params

from tests.gateway.anthropic_upstream import walk
from tests.gateway.clients.willing import Deed, Wish, obey
from tests.gateway.clients.willing_chat import pieces
from tests.gateway.told import Asked, Say, stream, whole

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 18,
}

_params: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(
    params.ResponseCreateParamsNonStreaming | params.ResponseCreateParamsStreaming
)
_names = {*params.ResponseCreateParamsBase.__annotations__, "stream"}
_KINDS = {"input_image": "image", "input_file": "file", "input_audio": "audio"}


def say_responses(asked: Asked) -> Say:
    """Answer one request."""
    body = asked.json
    if problem := complaint(body):
        error = {"message": problem, "type": "invalid_request_error", "param": None, "code": "bad"}
        return whole({"error": error}, 400)
    done = _response(body, obey(wish(body)))
    if not body.get("stream"):
        return whole(done)
    return stream(b"".join(_event(number, one) for number, one in enumerate(_events(done))), size=41)


def complaint(body: Any) -> str | None:
    """Return what OpenAI would have against a request."""
    if unknown := sorted(set(body) - _names):
        return f"Unknown parameter: {unknown[0]!r}."
    try:
        walk(_params.validate_python(_completed(body)))
    except pydantic.ValidationError as error:
        return str(error)[:600]
    calls = {item["call_id"] for item in _items(body) if item.get("type") == "function_call"}
    for item in _items(body):
        if item.get("type") == "function_call_output" and item["call_id"] not in calls:
            return f"No tool call found for function call output with call_id {item['call_id']}."
    return None


def _completed(body: Any) -> Any:
    """Return a request with what its types require and OpenAI lets clients leave out."""
    tools = [
        {"strict": None, **tool} if tool["type"] == "function" else tool for tool in body.get("tools") or []
    ]
    detailed = json.loads(json.dumps(body))
    for item in detailed["input"] if isinstance(detailed.get("input"), list) else []:
        for part in item["content"] if isinstance(item.get("content"), list) else []:
            if part["type"] == "input_image":
                part.setdefault("detail", "auto")
    return {**detailed, **({"tools": tools} if tools else {})}


def _items(body: Any) -> list[Any]:
    given = body.get("input") or []
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def wish(body: Any) -> Wish:
    """Read a request."""
    users = [item for item in _items(body) if item.get("role") == "user"]
    parts = users[-1]["content"] if users else ""
    parts = [{"type": "input_text", "text": parts}] if isinstance(parts, str) else parts
    choice = body.get("tool_choice") or "auto"
    form = (body.get("text") or {}).get("format") or {}
    loose = True if form.get("type") == "json_object" else None
    tools = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    return Wish(
        text=" ".join(part["text"] for part in parts if part["type"] == "input_text"),
        tools={tool["name"]: tool.get("parameters") or {} for tool in tools},
        choice=choice["name"] if isinstance(choice, dict) else {"required": "any"}.get(choice, choice),
        schema=form["schema"] if form.get("type") == "json_schema" else loose,
        has_results=bool(_items(body)) and _items(body)[-1].get("type") == "function_call_output",
        thinks=(body.get("reasoning") or {}).get("effort") not in (None, "none"),
        media=[_KINDS[part["type"]] for part in parts if part["type"] in _KINDS],
    )


def _response(body: Any, deed: Deed) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if deed.thought:
        summary = [{"type": "summary_text", "text": deed.thought}]
        output.append({"type": "reasoning", "id": "rs_1", "summary": summary})
    if deed.text:
        part = {"type": "output_text", "text": deed.text, "annotations": [], "logprobs": []}
        output.append({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                       "content": [part]})  # fmt: skip
    output += [
        {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name,
         "arguments": json.dumps(arguments, ensure_ascii=False), "status": "completed"}
        for number, (name, arguments) in enumerate(deed.calls)
    ]  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "error": None,
        "incomplete_details": None, "instructions": body.get("instructions"), "metadata": {},
        "model": f"{body['model']}-2026-01-01", "output": output, "parallel_tool_calls": True,
        "temperature": 1.0, "top_p": 1.0, "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [], "usage": USAGE,
        "text": body.get("text") or {"format": {"type": "text"}},
    }  # fmt: skip


def _events(done: dict[str, Any]) -> list[dict[str, Any]]:
    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    found: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    for index, item in enumerate(done["output"]):
        at: dict[str, Any] = {"item_id": item["id"], "output_index": index}
        empty: Any = {
            "message": {"content": []},
            "function_call": {"arguments": ""},
            "reasoning": {"summary": []},
        }
        started = {**item, **empty[item["type"]]}
        if "status" in item:
            started["status"] = "in_progress"
        found.append({"type": "response.output_item.added", "output_index": index, "item": started})
        if item["type"] == "message":
            found += _text(item["content"][0], {**at, "content_index": 0})
        elif item["type"] == "function_call":
            kind, whole_ = "response.function_call_arguments", item["arguments"]
            found += [{"type": f"{kind}.delta", **at, "delta": piece} for piece in pieces(whole_)]
            found.append({"type": f"{kind}.done", **at, "arguments": whole_, "name": item["name"]})
        else:
            found += _summary(item["summary"][0], {**at, "summary_index": 0})
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return [*found, {"type": "response.completed", "response": done}]


def _text(part: dict[str, Any], at: dict[str, Any]) -> list[dict[str, Any]]:
    kind = "response.output_text"
    return [
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": f"{kind}.delta", **at, "delta": piece, "logprobs": []} for piece in pieces(part["text"])),
        {"type": f"{kind}.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _summary(part: dict[str, Any], at: dict[str, Any]) -> list[dict[str, Any]]:
    kind = "response.reasoning_summary"
    return [
        {"type": f"{kind}_part.added", **at, "part": {**part, "text": ""}},
        *({"type": f"{kind}_text.delta", **at, "delta": piece} for piece in pieces(part["text"])),
        {"type": f"{kind}_text.done", **at, "text": part["text"]},
        {"type": f"{kind}_part.done", **at, "part": part},
    ]


def _event(number: int, value: dict[str, Any]) -> bytes:
    told = {**value, "sequence_number": number}
    return f"event: {value['type']}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n".encode()
