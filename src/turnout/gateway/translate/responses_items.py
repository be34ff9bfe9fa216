"""This module holds what whole answers and streams of OpenAI's Responses share: frame, items and usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from turnout.gateway.translate.refusal import plain
from turnout.gateway.translate.responses_turns import seal_thoughts
from turnout.gateway.wire import ChatRequest

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says where the request was silent."""


def wants_thoughts(request: ChatRequest) -> bool:
    """Whether the client takes sealed reasoning along and brings it back."""
    included = plain(request.members.get("include"))
    return isinstance(included, list) and "reasoning.encrypted_content" in included


def frame(request: ChatRequest, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response without its output; `answer` is a completion or a chunk, whose name it takes."""
    given = {name: plain(request.members.get(name)) for name in _ECHOED}
    return {
        "id": f"resp_{answer.get('id', '')}",
        "object": "response",
        "created_at": answer.get("created") or 0,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": answer.get("model", ""),
        "previous_response_id": None,
        "store": False,
        "output": [],
        "usage": None,
        **{name: silent if given[name] is None else given[name] for name, silent in _ECHOED.items()},
    }


def status_of(finish: str | None) -> str:
    """Return the status of an answer, and of its last item, by chat's finish reason."""
    return "incomplete" if (finish or "stop") in _INCOMPLETE else "completed"


def left_off(item: dict[str, Any], finish: str | None) -> dict[str, Any]:
    """Return the last item of an answer, which is incomplete where the answer is."""
    return {**item, "status": status_of(finish)} if "status" in item else item


def ended(begun: Mapping[str, Any], output: list[Any], finish: str | None, usage: Any) -> dict[str, Any]:
    """Return the response at its end."""
    reason = _INCOMPLETE.get(finish or "stop")
    return {
        **begun,
        "status": status_of(finish),
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": responses_usage(usage) if isinstance(usage, dict) else None,
    }


def message_item(number: int, answer_id: str, part: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what was said, or its beginning."""
    return {
        "type": "message",
        "id": f"msg_{answer_id}_{number}",
        "status": "in_progress" if part is None else "completed",
        "role": "assistant",
        "content": [] if part is None else [part],
    }


def text_part(text: str, notes: Sequence[Any] = (), logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """Return a text as a part of a message, with its citations and its chances."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": [annotation(note) for note in notes],
        "logprobs": logprobs,
    }


def annotation(note: Any) -> Any:
    """Return chat's citation of a page as Responses has it: without the level between."""
    cited = note.get("url_citation") if isinstance(note, dict) else None
    return {"type": "url_citation", **cited} if isinstance(cited, dict) else note


def logprobs_of(choice: Mapping[str, Any]) -> list[Any]:
    """Return the chances of a choice's tokens; nothing where they are not told."""
    told = choice.get("logprobs")
    return (told.get("content") or []) if isinstance(told, dict) else []


def call_item(number: int, answer_id: str, call: Mapping[str, str], status: str) -> dict[str, Any]:
    """Return a call of a tool; `call` has `call_id`, `name`, and `arguments`, or a custom tool's `input`."""
    kind, prefix = ("custom_tool_call", "ctc") if "input" in call else ("function_call", "fc")
    return {"type": kind, "id": f"{prefix}_{answer_id}_{number}", "status": status, **call}


def reasoning_item(number: int, answer_id: str, text: str, blocks: list[Any] | None) -> dict[str, Any]:
    """Return thoughts as a summary, with the signed ones sealed where the client takes them along."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: dict[str, Any] = {"type": "reasoning", "id": f"rs_{answer_id}_{number}", "summary": summary}
    return {**item, "encrypted_content": seal_thoughts(blocks)} if blocks else item


def responses_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage of Responses for one of chat."""
    read = _object(usage, "prompt_tokens_details")
    written = _object(usage, "completion_tokens_details")
    tokens_in, tokens_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {
            "cached_tokens": _count(read, "cached_tokens"),
            "cache_write_tokens": _count(read, "cache_write_tokens"),
        },
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": _count(written, "reasoning_tokens")},
        "total_tokens": tokens_in + tokens_out,
    }


def _object(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
