"""This module writes a stream of chat chunks as events of Anthropic's Messages."""

from __future__ import annotations

from typing import Any, final

from turnout.gateway.translate.call_line import Told, ToolCall
from turnout.gateway.translate.chat_answer_as_messages import message_id, stop
from turnout.gateway.translate.chat_chunks import ChatChunks
from turnout.gateway.translate.chat_said import said_of
from turnout.gateway.translate.events import write_event
from turnout.gateway.translate.words import messages_kind, messages_usage


@final
class ChatAsMessages(ChatChunks):
    """Translates one stream.

    Chat says nothing of where a part of the answer ends, so a block is closed by the next one. Usage comes
    last in chat: `message_start` says zero, `message_delta` what it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: str | None = None
        self._has_calls = False
        self._num_blocks = 0
        self._matched: str | int | None = None

    def _start(self, chunk: dict[str, Any]) -> bytes:
        message = {
            "id": message_id(str(chunk.get("id", ""))),
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model", ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": messages_usage({}),
        }
        return _write({"type": "message_start", "message": message})

    def _delta(self, delta: dict[str, Any], choice: dict[str, Any]) -> bytes:
        told = b""
        text, thoughts = said_of(delta)
        if thoughts:
            told += self._piece("thinking", {"type": "thinking_delta", "thinking": thoughts})
        if text := text or delta.get("refusal") or "":
            told += self._piece("text", {"type": "text_delta", "text": text})
        for call in self._calls_of(delta):
            told += self._calls(self._line.feed(call))
        if choice.get("finish_reason") is not None:
            self._matched = choice.get("stop_reason")
        return told

    def _piece(self, kind: str, delta: dict[str, Any]) -> bytes:
        told = b""
        if self._open != kind:
            told = self._calls(self._line.end())
            empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            told += self._begin(kind, empty)
        return told + self._more(delta)

    def _calls(self, told: list[Told]) -> bytes:
        return b"".join([self._call(call, text) for call, text in told])

    def _call(self, call: ToolCall, text: str) -> bytes:
        if text:
            return self._more({"type": "input_json_delta", "partial_json": text})
        self._has_calls = True
        return self._begin(
            "tool_use", {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
        )

    def _begin(self, kind: str, empty: dict[str, Any]) -> bytes:
        told = self._close()
        self._open = kind
        return told + _write(
            {"type": "content_block_start", "index": self._num_blocks, "content_block": empty}
        )

    def _more(self, delta: dict[str, Any]) -> bytes:
        return _write({"type": "content_block_delta", "index": self._num_blocks, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._num_blocks += 1
        return _write({"type": "content_block_stop", "index": self._num_blocks - 1})

    def _stop(self) -> bytes:
        told = self._calls(self._line.end()) + self._close()
        delta = {
            "type": "message_delta",
            "delta": stop(self._finish, self._matched, has_calls=self._has_calls),
            "usage": messages_usage(self._usage),
        }
        return told + _write(delta) + _write({"type": "message_stop"})

    def _error(self, error: Any) -> bytes:
        text = error.get("message") if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        kind = messages_kind(code) if isinstance(code, int) else "api_error"
        return _write({"type": "error", "error": {"type": kind, "message": str(text)}})


def _write(value: dict[str, Any]) -> bytes:
    return write_event(value, value["type"])
