"""This module writes a stream of chat chunks as events of Anthropic's Messages."""

from __future__ import annotations

from typing import Any, final

from turnout.gateway.translate.chat_answer_as_messages import message_id, stop
from turnout.gateway.translate.chat_chunks import ChatChunks
from turnout.gateway.translate.events import BadEventError, write_event
from turnout.gateway.translate.words import messages_kind, messages_usage


@final
class ChatAsMessages(ChatChunks):
    """Translates one stream.

    Chat says nothing of where a part of the answer ends, so a block is closed by the next one. Usage comes
    last in chat: `message_start` says zero, `message_delta` what it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: tuple[str, int] | None = None
        self._call_id: str | None = None
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
        if thoughts := delta.get("reasoning_content") or delta.get("reasoning"):
            told += self._piece("thinking", {"type": "thinking_delta", "thinking": thoughts})
        if text := delta.get("content") or delta.get("refusal"):
            told += self._piece("text", {"type": "text_delta", "text": text})
        for call in delta.get("tool_calls") or []:
            told += self._call(call)
        if choice.get("finish_reason") is not None:
            self._matched = choice.get("stop_reason")
        return told

    def _piece(self, kind: str, delta: dict[str, Any]) -> bytes:
        told = b""
        if self._open is None or self._open[0] != kind:
            empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            told = self._begin(kind, 0, empty)
        return told + self._more(delta)

    def _call(self, call: dict[str, Any]) -> bytes:
        index, function, told = call.get("index", 0), call.get("function") or {}, b""
        # Some servers give every call the index 0; a new id is a new call whatever its index says.
        is_new = bool(call.get("id")) and call["id"] != self._call_id
        if is_new or self._open != ("tool_use", index):
            if not call.get("id") or not function.get("name"):
                raise BadEventError(f"a piece of the tool call {index} that is not open")
            empty = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            self._call_id = call["id"]
            told = self._begin("tool_use", index, empty)
        if pieces := function.get("arguments"):
            told += self._more({"type": "input_json_delta", "partial_json": pieces})
        return told

    def _begin(self, kind: str, number: int, empty: dict[str, Any]) -> bytes:
        told = self._close()
        self._open = (kind, number)
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
        delta = {
            "type": "message_delta",
            "delta": stop(self._finish, self._matched),
            "usage": messages_usage(self._usage),
        }
        return self._close() + _write(delta) + _write({"type": "message_stop"})

    def _error(self, error: Any) -> bytes:
        text = error.get("message") if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        kind = messages_kind(code) if isinstance(code, int) else "api_error"
        return _write({"type": "error", "error": {"type": kind, "message": str(text)}})


def _write(value: dict[str, Any]) -> bytes:
    return write_event(value, value["type"])
