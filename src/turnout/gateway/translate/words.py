"""This module holds the words of OpenAI's chat and Anthropic's Messages side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from turnout.gateway.stream import whole_count

FINISH_OF_STOP = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Chat's finish reason for each stop reason of Messages."""

STOP_OF_FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""And back."""

_KIND_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def counts_of(usage: object) -> Mapping[str, Any]:
    """Return a usage object; an answer is not lost for one that is none."""
    return usage if isinstance(usage, dict) else {}


def chat_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return chat's usage of one of Messages, whose input leaves out what a cache gave or took."""
    read, written = count_in(usage, "cache_read_input_tokens"), count_in(usage, "cache_creation_input_tokens")
    tokens_in = count_in(usage, "input_tokens") + read + written
    tokens_out = count_in(usage, "output_tokens")
    told: dict[str, Any] = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }
    if kept_1h := min(written_1h(usage), written):
        told["prompt_tokens_details"]["cache_write_1h_tokens"] = kept_1h
    details = usage.get("output_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("thinking_tokens"), int):
        told["completion_tokens_details"] = {"reasoning_tokens": details["thinking_tokens"]}
    return told


def written_1h(usage: Mapping[str, Any]) -> int:
    """Return the tokens of a usage of Messages that were written to the cache for an hour."""
    return count_in(counts_of(usage.get("cache_creation")), "ephemeral_1h_input_tokens")


def chat_error(body: bytes) -> bytes:
    """Return an error of Messages as OpenAI's clients read it; a body that is none stays as it came."""
    try:
        error = msgspec.json.decode(body)["error"]
        kind, message = str(error["type"]), str(error["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return body
    told = {"message": message, "type": kind, "param": None, "code": kind}
    return msgspec.json.encode({"error": told})


def messages_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage of Messages for one of chat; what a cache gave and took is counted apart there."""
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    read, written = count_in(details, "cached_tokens"), count_in(details, "cache_write_tokens")
    told: dict[str, Any] = {
        "input_tokens": max(0, count_in(usage, "prompt_tokens") - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": count_in(usage, "completion_tokens"),
    }
    if kept_1h := min(count_in(details, "cache_write_1h_tokens"), written):
        told["cache_creation"] = {
            "ephemeral_5m_input_tokens": written - kept_1h,
            "ephemeral_1h_input_tokens": kept_1h,
        }
    spent = usage.get("completion_tokens_details")
    if isinstance(spent, dict) and isinstance(spent.get("reasoning_tokens"), int):
        told["output_tokens_details"] = {"thinking_tokens": spent["reasoning_tokens"]}
    return told


def messages_error(body: bytes, status: int) -> bytes:
    """Return an error of OpenAI's as Anthropic's clients read it; of another body, its beginning."""
    try:
        message = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        message = body[:500].decode("utf-8", "replace")
    error = {"type": messages_kind(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": None})


def messages_kind(status: int) -> str:
    """Return the word for an HTTP status among the errors of Messages."""
    return _KIND_OF_STATUS.get(status, "invalid_request_error" if status < 500 else "api_error")


def count_in(usage: Mapping[str, Any], name: str) -> int:
    """Return a count of a usage object; 0 where it is none."""
    return whole_count(usage.get(name)) or 0
