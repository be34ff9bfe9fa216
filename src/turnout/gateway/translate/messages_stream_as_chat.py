"""This module writes a stream of Anthropic's Messages as chat chunks."""

from __future__ import annotations

import time
from typing import Any, final

import msgspec

from turnout.gateway.stream import DONE
from turnout.gateway.translate.events import BadEventError, EventCutter, Translator, read_object, write_event
from turnout.gateway.translate.json_form import ObjectCutter
from turnout.gateway.translate.words import FINISH_OF_STOP, chat_usage, counts_of


@final
class MessagesAsChat(Translator):
    """Translates one stream.

    `[DONE]` is written for `message_stop` and for nothing else, so that a cut stream is never taken for an
    answer.

    Parameters
    ----------
    asks_usage:
        Whether the client asked for usage: then every chunk before says that it has none yet.
    only_object:
        Whether what stands around a JSON object is left out.
    """

    def __init__(self, *, asks_usage: bool, only_object: bool = False) -> None:
        self._cutter = EventCutter()
        self._object = ObjectCutter() if only_object else None
        self._silent = {"usage": None} if asks_usage else {}
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._num_calls = 0
        self._is_finished = False
        self._is_over = False

    @property
    def reported(self) -> dict[str, Any]:
        """The usage so far, in chat's words."""
        return chat_usage(self._usage) if self._usage else {}

    def feed(self, block: bytes) -> bytes:
        """Return the chunks of what has arrived; raises `BadEventError`."""
        return b"".join([self._event(read_object(data)) for data in self._cutter.feed(block)])

    def end(self) -> bytes:
        """Return the usage of an answer that was finished; without `message_stop` there is no `[DONE]`."""
        return self._usage_chunk() if self._is_finished and not self._is_over else b""

    def _event(self, event: dict[str, Any]) -> bytes:
        if self._is_over:
            return b""
        kind = event.get("type")
        try:
            if kind == "message_start":
                return self._start(event["message"])
            if kind == "content_block_start":
                return self._open(event["index"], event["content_block"])
            if kind == "content_block_delta":
                return self._delta(event["index"], event["delta"])
            if kind == "content_block_stop":
                return self._close(event["index"])
            if kind == "message_delta":
                told = counts_of(event.get("usage")).items()
                self._usage.update({name: value for name, value in told if value is not None})
                return self._finish(event["delta"])
            if kind == "message_stop":
                self._is_over = True
                return self._usage_chunk() + DONE
            if kind == "error":
                self._is_over = True
                return _error(event["error"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise BadEventError(f"an event of type {kind!r} without {error}") from error
        return b""  # ping, and kinds to come: the API says that unknown ones are to be passed over

    def _start(self, message: dict[str, Any]) -> bytes:
        self._usage.update(counts_of(message.get("usage")))
        self._head = {
            "id": message["id"],
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": message["model"],
        }
        return self._delta_chunk({"role": "assistant", "content": ""})

    def _open(self, index: int, block: dict[str, Any]) -> bytes:
        block = dict(block)
        self._blocks[index] = block
        if block["type"] == "tool_use":
            block["call"], self._num_calls = self._num_calls, self._num_calls + 1
            function = {"name": block["name"], "arguments": ""}
            call = {"index": block["call"], "id": block["id"], "type": "function", "function": function}
            told = self._delta_chunk({"tool_calls": [call]})
            # Nearly always the input comes in pieces; a start that has it already has all of it.
            given = block.get("input")
            return told + (self._arguments(block, msgspec.json.encode(given).decode()) if given else b"")
        if block["type"] == "text" and block.get("text"):
            return self._text(block["text"])
        if block["type"] == "thinking" and block.get("thinking"):
            return self._delta_chunk({"reasoning_content": block["thinking"]})
        return b""

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        block, kind = self._blocks[index], delta["type"]
        if kind == "text_delta":
            return self._text(delta["text"])
        if kind == "input_json_delta" and "call" in block:
            return self._arguments(block, delta["partial_json"])
        if kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
            return self._delta_chunk({"reasoning_content": delta["thinking"]})
        if kind == "signature_delta":
            block["signature"] = block.get("signature", "") + delta["signature"]
        return b""

    def _text(self, text: str) -> bytes:
        told = text if self._object is None else self._object.feed(text)
        return self._delta_chunk({"content": told}) if told or self._object is None else b""

    def _arguments(self, block: dict[str, Any], text: str) -> bytes:
        if not text:
            return b""
        block["has_input"] = True
        call = {"index": block["call"], "function": {"arguments": text}}
        return self._delta_chunk({"tool_calls": [call]})

    def _close(self, index: int) -> bytes:
        block = self._blocks.pop(index)
        if block["type"] in ("thinking", "redacted_thinking"):
            return self._delta_chunk({"thinking_blocks": [block]})
        if "call" in block and "has_input" not in block:
            return self._arguments(block, "{}")
        return b""

    def _finish(self, delta: dict[str, Any]) -> bytes:
        reason = delta.get("stop_reason")
        if reason is None:
            return b""
        self._is_finished = True
        rest = "" if self._object is None else self._object.end()
        last = self._delta_chunk({"content": rest}) if rest else b""
        more = {} if delta.get("stop_sequence") is None else {"stop_reason": delta["stop_sequence"]}
        return last + self._delta_chunk({}, finish=FINISH_OF_STOP.get(str(reason), "stop"), **more)

    def _delta_chunk(self, delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
        if not self._head:
            raise BadEventError("a stream that does not begin with 'message_start'")
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **more}
        return write_event(self._chunk([choice], self._silent))

    def _usage_chunk(self) -> bytes:
        return write_event(self._chunk([], {"usage": chat_usage(self._usage)}))

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": choices, **more}


def _error(error: dict[str, Any]) -> bytes:
    """Return an event that OpenAI's clients raise."""
    told = {"message": error["message"], "type": error["type"], "param": None, "code": error["type"]}
    return write_event({"error": told})
