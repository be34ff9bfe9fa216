"""This module writes a stream of chat chunks as events of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from turnout.gateway.translate.call_line import Told, ToolCall
from turnout.gateway.translate.chat_chunks import ChatChunks
from turnout.gateway.translate.chat_said import said_of
from turnout.gateway.translate.events import write_event
from turnout.gateway.translate.responses_items import (
    annotation,
    call_item,
    ended,
    frame,
    left_off,
    logprobs_of,
    message_item,
    reasoning_item,
    text_part,
    wants_thoughts,
)
from turnout.gateway.wire import ChatRequest

_KINDS = {"text": "output_text", "refusal": "refusal", "thoughts": "reasoning_summary_text"}
_GIVEN = {"arguments": "response.function_call_arguments", "input": "response.custom_tool_call_input"}


@final
class ChatAsResponses(ChatChunks):
    """Translates one stream.

    Chat says nothing of where a part of the answer ends, so an item is closed by the next one.

    Parameters
    ----------
    request:
        What the client asked, in its own API; a response repeats parts of it.
    """

    def __init__(self, *, request: ChatRequest) -> None:
        super().__init__()
        self._request = request
        self._is_sealed = wants_thoughts(request)
        self._begun: dict[str, Any] = {}
        self._output: list[dict[str, Any]] = []
        self._open: str | None = None
        self._at: dict[str, Any] = {}
        """Where the open part stands."""
        self._call: dict[str, str] = {}
        self._word = "arguments"
        self._text = ""
        self._notes: list[Any] = []
        self._logprobs: list[Any] = []
        self._blocks: list[Any] = []
        self._num_events = 0

    def _start(self, chunk: dict[str, Any]) -> bytes:
        self._begun = frame(self._request, chunk)
        return b"".join(
            self._write(f"response.{name}", response=self._begun) for name in ("created", "in_progress")
        )

    def _delta(self, delta: dict[str, Any], choice: dict[str, Any]) -> bytes:
        told = b""
        text, thoughts = said_of(delta)
        if thoughts:
            told += self._piece("thoughts", thoughts)
        if self._is_sealed:
            self._blocks += delta.get("thinking_blocks") or []
        for kind, piece in (("text", text), ("refusal", delta.get("refusal"))):
            if piece:
                told += self._piece(kind, piece, logprobs_of(choice))
        for note in delta.get("annotations") or []:
            told += self._note(note)
        for call in self._calls_of(delta):
            told += self._calls(self._line.feed(call))
        return told

    def _piece(self, kind: str, text: str, logprobs: Sequence[Any] = ()) -> bytes:
        told = b""
        if self._open is None or self._open != kind:
            told = self._calls(self._line.end()) + self._close() + self._begin(kind)
            told += self._part("added", "")
        self._text += text
        more: dict[str, Any] = {"logprobs": logprobs} if kind == "text" else {}
        self._logprobs += logprobs
        return told + self._write(f"response.{_KINDS[kind]}.delta", **self._at, delta=text, **more)

    def _note(self, note: Any) -> bytes:
        """Tell of a citation of the text that is open."""
        if self._open is None or self._open != "text":
            return b""
        self._notes.append(note)
        told = {"annotation_index": len(self._notes) - 1, "annotation": annotation(note)}
        return self._write("response.output_text.annotation.added", **self._at, **told)

    def _calls(self, told: list[Told]) -> bytes:
        return b"".join([self._call_piece(call, text) for call, text in told])

    def _call_piece(self, call: ToolCall, text: str) -> bytes:
        if text:
            self._text += text
            return self._write(f"{_GIVEN[call.word]}.delta", **self._at, delta=text)
        told = self._close()
        self._call, self._word = {"call_id": call.call_id, "name": call.name}, call.word
        return told + self._begin("call")

    def _item(self, status: str) -> dict[str, Any]:
        """Return the open item as it is now."""
        assert self._open is not None
        kind, number, is_done = self._open, len(self._output), status == "completed"
        if kind == "call":
            return call_item(number, self._answer_id, {**self._call, self._word: self._text}, status)
        if kind == "thoughts":
            return reasoning_item(number, self._answer_id, self._text, self._blocks if is_done else None)
        return message_item(number, self._answer_id, self._content(self._text) if is_done else None)

    def _content(self, text: str) -> dict[str, Any]:
        """Return the part of the open item."""
        assert self._open is not None
        if self._open == "thoughts":
            return {"type": "summary_text", "text": text}
        if self._open == "refusal":
            return {"type": "refusal", "refusal": text}
        return text_part(text, self._notes, self._logprobs)

    def _begin(self, kind: str) -> bytes:
        """Open an item; where it stands is the same for all of its pieces."""
        self._open = kind
        item = self._item("in_progress")
        part = {"thoughts": {"summary_index": 0}, "call": {}}.get(kind, {"content_index": 0})
        self._at = {"item_id": item["id"], "output_index": len(self._output), **part}
        return self._write("response.output_item.added", output_index=len(self._output), item=item)

    def _part(self, what: str, text: str) -> bytes:
        assert self._open is not None
        name = "reasoning_summary_part" if self._open == "thoughts" else "content_part"
        return self._write(f"response.{name}.{what}", **self._at, part=self._content(text))

    def _close(self, finish: str | None = None) -> bytes:
        """End the open item, the last one with a finish reason; tell thoughts known by signatures alone."""
        told = b""
        if self._open is None and self._blocks and not self._output:
            told = self._begin("thoughts")
        elif self._open is not None and self._open == "call":
            name = {"name": self._call["name"]} if self._word == "arguments" else {}
            done = f"{_GIVEN[self._word]}.done"
            told = self._write(done, **self._at, **name, **{self._word: self._text})
        elif self._open is not None:
            field = "refusal" if self._open == "refusal" else "text"
            more: dict[str, Any] = {"logprobs": self._logprobs} if self._open == "text" else {}
            done = f"response.{_KINDS[self._open]}.done"
            told = self._write(done, **self._at, **{field: self._text}, **more)
            told += self._part("done", self._text)
        if self._open is None:
            return told
        item = left_off(self._item("completed"), finish)
        told += self._write("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._open, self._text, self._notes, self._logprobs = None, "", [], []
        return told

    def _stop(self) -> bytes:
        told = self._calls(self._line.end()) + self._close(self._finish)
        response = ended(self._begun, self._output, self._finish, self._usage or None)
        return told + self._write(f"response.{response['status']}", response=response)

    def _error(self, error: Any) -> bytes:
        known = error if isinstance(error, dict) else {"message": str(error)}
        code, message = known.get("code"), str(known.get("message"))
        code = None if code is None else str(code)
        return self._write("error", code=code, message=message, param=None, error=known)

    def _write(self, kind: str, **members: Any) -> bytes:
        event = {"type": kind, **members, "sequence_number": self._num_events}
        self._num_events += 1
        return write_event(event, kind)
