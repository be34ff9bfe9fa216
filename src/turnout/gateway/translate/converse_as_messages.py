"""This module writes answers of Bedrock's Converse as Anthropic's Messages, and so as chat."""

from __future__ import annotations

from typing import Any, final

import msgspec

from turnout.gateway.translate.aws_events import AwsEventCutter
from turnout.gateway.translate.events import BadEventError, Translator, read_object, write_event
from turnout.gateway.translate.messages_answer_as_chat import chat_completion
from turnout.gateway.translate.messages_stream_as_chat import MessagesAsChat

_STOP = {
    "guardrail_intervened": "refusal",
    "content_filtered": "refusal",
    "malformed_model_output": "end_turn",
    "malformed_tool_use": "end_turn",
}
_USAGE = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
}


def chat_of_converse(body: bytes, *, answer_id: str, model: str, only_object: bool = False) -> bytes:
    """Return the completion; raises `BadEventError` for a body that is no answer."""
    told = read_object(body)
    try:
        message = {
            "id": answer_id,
            "model": model,
            "content": [_block(block) for block in told["output"]["message"]["content"]],
            "stop_reason": _stop(told["stopReason"]),
            "usage": _usage(told.get("usage") or {}),
        }
        return chat_completion(msgspec.json.encode(message), only_object=only_object)
    except (KeyError, TypeError, AttributeError, msgspec.DecodeError) as error:
        raise BadEventError(f"no answer: {error}") from error


def converse_error(body: bytes, kind: str | None) -> bytes:
    """Return an error as OpenAI's clients read it; a body that is none stays as it came."""
    try:
        value = msgspec.json.decode(body)
        message = value.get("message") or value["Message"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        return body
    name = (kind or "error").partition(":")[0]
    return msgspec.json.encode({"error": {"message": message, "type": name, "param": None, "code": name}})


def _block(block: dict[str, Any]) -> dict[str, Any]:
    if "text" in block:
        return {"type": "text", "text": block["text"]}
    if "toolUse" in block:
        use = block["toolUse"]
        return {"type": "tool_use", "id": use["toolUseId"], "name": use["name"], "input": use["input"]}
    thoughts = block.get("reasoningContent", {})
    if "redactedContent" in thoughts:
        return {"type": "redacted_thinking", "data": thoughts["redactedContent"]}
    text = thoughts.get("reasoningText", {})
    return {"type": "thinking", "thinking": text.get("text", ""), "signature": text.get("signature", "")}


def _stop(reason: str) -> str:
    return _STOP.get(reason, reason)


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {ours: usage[theirs] for theirs, ours in _USAGE.items() if usage.get(theirs) is not None}


@final
class ConverseAsChat(Translator):
    """Translates one stream; usage comes after the stop in `metadata`, which ends it.

    Parameters
    ----------
    answer_id, model:
        What the answer is called: Converse says neither.
    asks_usage:
        Whether the client asked for usage.
    only_object:
        Whether what stands around a JSON object is left out.
    """

    def __init__(self, *, answer_id: str, model: str, asks_usage: bool, only_object: bool = False) -> None:
        self._cutter = AwsEventCutter()
        self._inner = MessagesAsChat(asks_usage=asks_usage, only_object=only_object)
        self._head = {"id": answer_id, "model": model}
        self._open: set[int] = set()
        self._is_stopped = False

    @property
    def reported(self) -> dict[str, Any]:
        """The usage so far, in chat's words."""
        return self._inner.reported

    def feed(self, block: bytes) -> bytes:
        """Return the chunks of what has arrived; raises `BadEventError`."""
        return b"".join([self._event(headers, payload) for headers, payload in self._cutter.feed(block)])

    def end(self) -> bytes:
        """Return the usage of an answer that has stopped, if no `metadata` came."""
        return self._inner.end()

    def _event(self, headers: dict[str, str], payload: bytes) -> bytes:
        told = read_object(payload)
        if headers.get(":message-type") != "event":
            kind = headers.get(":exception-type") or headers.get(":error-code") or "error"
            message = str(told.get("message") or headers.get(":error-message") or kind)
            return self._tell({"type": "error", "error": {"type": kind, "message": message}})
        try:
            return b"".join([self._tell(event) for event in self._as_messages(headers[":event-type"], told)])
        except (KeyError, TypeError, AttributeError) as error:
            raise BadEventError(f"an event without {error}") from error

    def _as_messages(self, kind: str, told: dict[str, Any]) -> list[dict[str, Any]]:
        index = told.get("contentBlockIndex", 0)
        if kind == "messageStart":
            return [{"type": "message_start", "message": {**self._head, "usage": {}}}]
        if kind == "contentBlockStart":
            use = told["start"].get("toolUse")
            return [] if use is None else [self._start(index, _block({"toolUse": {**use, "input": {}}}))]
        if kind == "contentBlockDelta":
            return self._delta(index, told["delta"])
        if kind == "contentBlockStop":
            stop = {"type": "content_block_stop", "index": index}
            return [stop] if index in self._open else []
        if kind == "messageStop":
            self._is_stopped = True
            return [{"type": "message_delta", "delta": {"stop_reason": _stop(told["stopReason"])}}]
        if kind == "metadata" and self._is_stopped:
            usage = {"type": "message_delta", "delta": {}, "usage": _usage(told.get("usage") or {})}
            return [usage, {"type": "message_stop"}]
        return []

    def _start(self, index: int, block: dict[str, Any]) -> dict[str, Any]:
        self._open.add(index)
        return {"type": "content_block_start", "index": index, "content_block": block}

    def _delta(self, index: int, delta: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the piece, after the start of its block, which Converse leaves out for all but tools."""
        if "toolUse" in delta:
            block: dict[str, Any] = {}
            piece = {"type": "input_json_delta", "partial_json": delta["toolUse"]["input"]}
        elif "text" in delta:
            block = {"type": "text", "text": ""}
            piece = {"type": "text_delta", "text": delta["text"]}
        elif "reasoningContent" in delta:
            return self._thought(index, delta["reasoningContent"])
        else:
            return []
        start = [] if index in self._open else [self._start(index, block)]
        return [*start, {"type": "content_block_delta", "index": index, "delta": piece}]

    def _thought(self, index: int, thought: dict[str, Any]) -> list[dict[str, Any]]:
        if "redactedContent" in thought:
            return [self._start(index, {"type": "redacted_thinking", "data": thought["redactedContent"]})]
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        start = [] if index in self._open else [self._start(index, empty)]
        kind, name = ("thinking_delta", "thinking") if "text" in thought else ("signature_delta", "signature")
        piece = {"type": kind, name: thought.get("text", thought.get("signature", ""))}
        return [*start, {"type": "content_block_delta", "index": index, "delta": piece}]

    def _tell(self, event: dict[str, Any]) -> bytes:
        return self._inner.feed(write_event(event))
