"""This module writes answers of Gemini's as chat: whole ones, streams and errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.stream import DONE
from turnout.gateway.translate.events import BadEventError, EventCutter, Translator, read_object, write_event
from turnout.gateway.translate.words import count_in, counts_of

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_LOST = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE")
"""Reasons of a call, or an answer, that was written and not delivered: what is left is no answer."""
_VAGUE = ("OTHER", "FINISH_REASON_UNSPECIFIED")


_TYPE = "upstream_error"


class NotAnAnswerError(ValueError):
    """A body that says 200 and holds no answer."""


def chat_of_gemini(body: bytes) -> bytes:
    """Return the completion; raises `NotAnAnswerError`."""
    try:
        told = read_object(body)
        reader = _Reader(told)
        choices = [_whole(reader, candidate) for candidate in reader.candidates(told)]
    except NotAnAnswerError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotAnAnswerError(str(error)) from error
    if not choices:
        raise NotAnAnswerError("no candidates")
    head = {**reader.head, "object": "chat.completion"}
    return msgspec.json.encode(
        {**head, "choices": choices, "usage": gemini_usage(counts_of(told.get("usageMetadata")))}
    )


def gemini_error(body: bytes) -> bytes:
    """Return an error as OpenAI's clients read it; a body that is none stays as it came."""
    try:
        value = msgspec.json.decode(body)
        error = (value[0] if isinstance(value, list) else value)["error"]
        return msgspec.json.encode({"error": _error(error)})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, IndexError):
        return body


def gemini_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return chat's usage; thoughts are counted apart there and are part of the output here."""
    thoughts = count_in(usage, "thoughtsTokenCount")
    tokens_in = count_in(usage, "promptTokenCount") + count_in(usage, "toolUsePromptTokenCount")
    tokens_out = count_in(usage, "candidatesTokenCount") + thoughts
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": count_in(usage, "cachedContentTokenCount")},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


class _Reader:
    """Reads candidates, and gives calls of tools the ids that Gemini may leave out."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.id = str(told.get("responseId", ""))
        self.head = {"id": self.id, "created": int(time.time()), "model": told.get("modelVersion", "")}
        self._num_calls: dict[int, int] = {}

    def candidates(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the candidates; a prompt that was blocked has one that says so."""
        if "candidates" in told or not (told.get("promptFeedback") or {}).get("blockReason"):
            return told.get("candidates") or []
        return [{"index": 0, "finishReason": "SAFETY"}]

    def delta(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """Return what a candidate says, in the words of a chat delta."""
        index, delta = candidate.get("index", 0), {}
        texts, thoughts, calls = [], [], []
        for part in (candidate.get("content") or {}).get("parts") or []:
            if "functionCall" in part:
                calls.append(self._call(index, part))
            elif part.get("thought"):
                thoughts.append(part.get("text", ""))
            elif "text" in part:
                texts.append(part["text"])
        for name, pieces in (("content", texts), ("reasoning_content", thoughts)):
            if pieces:
                delta[name] = "".join(pieces)
        return {**delta, "tool_calls": calls} if calls else delta

    def _call(self, index: int, part: dict[str, Any]) -> dict[str, Any]:
        call, number = part["functionCall"], self._num_calls.get(index, 0)
        self._num_calls[index] = number + 1
        arguments = msgspec.json.encode(call.get("args") or {}).decode()
        told = {
            "index": number,
            "id": call.get("id") or f"call_{self.id}_{index}_{number}",
            "type": "function",
            "function": {"name": call["name"], "arguments": arguments},
        }
        if signature := part.get("thoughtSignature"):
            told["extra_content"] = {"google": {"thought_signature": signature}}
        return told

    def finish(self, candidate: dict[str, Any]) -> str | None:
        """Return the finish reason, None while there is none."""
        reason = candidate.get("finishReason")
        if reason is None:
            return None
        if reason in _LOST:
            raise NotAnAnswerError(_lost(candidate))
        if reason == "STOP" and self._num_calls.get(candidate.get("index", 0)):
            return "tool_calls"
        return "stop" if reason in _VAGUE else _FINISH.get(reason, "content_filter")


def _whole(reader: _Reader, candidate: dict[str, Any]) -> dict[str, Any]:
    delta = reader.delta(candidate)
    message = {
        "role": "assistant",
        "content": None if "tool_calls" in delta else "",
        "refusal": None,
        **delta,
    }
    for call in message.get("tool_calls", []):
        del call["index"]
    finish = reader.finish(candidate)
    return {"index": candidate.get("index", 0), "message": message, "logprobs": None, "finish_reason": finish}


@final
class GeminiAsChat(Translator):
    """Translates one stream.

    It has no last event: `[DONE]` comes where it ended after a finish reason for every choice.

    Parameters
    ----------
    asks_usage:
        Whether the client asked for usage: then every chunk before says that it has none yet.
    num_choices:
        How many answers the client asked for.
    """

    def __init__(self, *, asks_usage: bool, num_choices: int = 1) -> None:
        self._cutter = EventCutter()
        self._silent = {"usage": None} if asks_usage else {}
        self._reader: _Reader | None = None
        self._usage: dict[str, Any] = {}
        self._num_choices = num_choices
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._is_over = False

    @property
    def reported(self) -> dict[str, Any]:
        """The usage so far, in chat's words."""
        return gemini_usage(self._usage) if self._usage else {}

    def feed(self, block: bytes) -> bytes:
        """Return the chunks of what has arrived; raises `BadEventError`."""
        return b"".join([self._event(read_object(data)) for data in self._cutter.feed(block)])

    def end(self) -> bytes:
        """Return usage and `[DONE]` where every candidate has come to its end."""
        if self._is_over or len(self._ended) < self._num_choices:
            return b""
        last = {**self._head(), "choices": [], "usage": gemini_usage(self._usage)}
        return write_event(last) + DONE

    def _event(self, told: dict[str, Any]) -> bytes:
        if self._is_over:
            return b""
        try:
            if told.get("error") is not None:
                self._is_over = True
                return write_event({"error": _error(told["error"])})
            reader = self._reader = self._reader or _Reader(told)
            self._usage.update(counts_of(told.get("usageMetadata")))
            return b"".join([self._choice(reader, candidate) for candidate in reader.candidates(told)])
        except NotAnAnswerError as error:
            self._is_over = True
            return write_event(
                {"error": {"message": str(error), "type": _TYPE, "param": None, "code": _TYPE}}
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise BadEventError(f"a chunk that is none: {error}") from error

    def _choice(self, reader: _Reader, candidate: dict[str, Any]) -> bytes:
        index, delta = candidate.get("index", 0), reader.delta(candidate)
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        finish = reader.finish(candidate)
        if finish is not None:
            self._ended.add(index)
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return write_event({**self._head(), "choices": [choice], **self._silent})

    def _head(self) -> dict[str, Any]:
        head = {} if self._reader is None else self._reader.head
        return {**head, "object": "chat.completion.chunk"}


def is_lost(told: dict[str, Any]) -> bool:
    """Whether an event says no more than that the answer was lost."""
    candidates = told.get("candidates") or []
    return bool(candidates) and all(
        one.get("finishReason") in _LOST and not (one.get("content") or {}).get("parts") for one in candidates
    )


def _lost(candidate: dict[str, Any]) -> str:
    return sentence(
        "the upstream wrote a call of a tool, or an answer, that it could not deliver",
        allowed="an answer that is whole",
        got=f"{candidate['finishReason']} {candidate.get('finishMessage') or ''}".strip()[:200],
        do="ask again",
    )


def _error(error: Any) -> dict[str, Any]:
    """Return OpenAI's error object for one of Google's, or for what stands in its place."""
    if not isinstance(error, dict):
        return {"message": str(error), "type": _TYPE, "param": None, "code": _TYPE}
    kind = str(error.get("status", "error")).lower()
    return {"message": str(error.get("message", kind)), "type": kind, "param": None, "code": kind}
