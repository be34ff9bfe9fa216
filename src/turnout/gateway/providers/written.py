"""This module writes chat answers in the OpenAI shape, for providers that have no upstream to copy from."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from turnout.gateway.errors import Headers
from turnout.gateway.providers.base import Call, Reply
from turnout.gateway.stream import DONE

_CHUNK = "chat.completion.chunk"
_JSON: Headers = [(b"content-type", b"application/json")]
_EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]

Usage = Mapping[str, int]


def usage_of(input_tokens: int, output_tokens: int) -> Usage:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def whole_reply(call: Call, text: str, *, finish: str, usage: Usage | None) -> Reply:
    """Return a whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish,
    }
    body = {**_head(call, "chat.completion"), "choices": [choice]}
    if usage is not None:
        body["usage"] = usage
    return Reply(status=200, headers=_JSON, body=msgspec.json.encode(body))


class ChatEvents:
    """Writes the events of one streamed answer.

    The gateway takes the usage chunk out again for a client that did not ask for it.
    """

    headers: Headers = _EVENTS

    def __init__(self, call: Call) -> None:
        self._head = _head(call, _CHUNK)
        self._silent = {"usage": None} if call.request.asks_usage else {}

    def begin(self) -> bytes:
        """Return the first event, which names the role."""
        return self._choice({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Return an event with some more text."""
        return self._choice({"content": text})

    def end(self, finish: str, usage: Usage | None) -> bytes:
        """Return the last events."""
        last = self._choice({}, finish=finish)
        if usage is not None:
            last += _event({**self._head, "choices": [], "usage": usage})
        return last + DONE

    def _choice(self, delta: dict[str, object], *, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**self._head, **self._silent, "choices": [choice]})


def _head(call: Call, kind: str) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{call.decision_id}",
        "object": kind,
        "created": int(time.time()),
        "model": call.candidate.name,
        "service_tier": None,
        "system_fingerprint": None,
    }


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
