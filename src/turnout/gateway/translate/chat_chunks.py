"""This module reads a stream of chat chunks for whoever writes it in another language."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from turnout.gateway.translate.call_line import CallLine
from turnout.gateway.translate.chat_said import calls_of
from turnout.gateway.translate.events import BadEventError, EventCutter, Translator, read_object
from turnout.gateway.translate.words import counts_of


class ChatChunks(Translator):
    """Reads chunks in order; a subclass says what is told of each.

    An answer has ended with `[DONE]`, or with a stream that ends after a finish reason, and with nothing
    else.
    """

    def __init__(self) -> None:
        self._cutter = EventCutter()
        self._line = CallLine()
        self._answer_id = ""
        self._usage: dict[str, Any] = {}
        self._finish: str | None = None
        self._has_begun = False
        self._is_over = False

    @property
    def reported(self) -> dict[str, Any]:
        """The usage so far, in chat's words."""
        return self._usage

    def feed(self, block: bytes) -> bytes:
        """Return the events of what has arrived; raises `BadEventError`."""
        return b"".join([self._event(data) for data in self._cutter.feed(block)])

    def end(self) -> bytes:
        """Return the last events where the upstream gave a finish reason and left out `[DONE]`."""
        return b"" if self._finish is None or self._is_over else self._last()

    @abstractmethod
    def _start(self, chunk: dict[str, Any]) -> bytes:
        """Return how the answer begins, by its first chunk."""

    @abstractmethod
    def _delta(self, delta: dict[str, Any], choice: dict[str, Any]) -> bytes:
        """Return what a piece of a choice adds."""

    @abstractmethod
    def _stop(self) -> bytes:
        """Return the last events of an answer."""

    @abstractmethod
    def _error(self, error: Any) -> bytes:
        """Return the upstream's error as an event that the client raises."""

    def _event(self, data: bytes) -> bytes:
        if self._is_over:
            return b""
        if data.strip() == b"[DONE]":
            if not self._has_begun:
                raise BadEventError("[DONE] before any chunk")
            return self._last()
        chunk = read_object(data)
        try:
            if chunk.get("error") is not None:
                self._is_over = True
                return self._error(chunk["error"])
            told = b""
            if not self._has_begun:
                self._answer_id = str(chunk.get("id", ""))
                told = self._start(chunk)
            self._has_begun = True
            self._usage.update(counts_of(chunk.get("usage")))
            return told + b"".join([self._choice(choice) for choice in chunk.get("choices") or []])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise BadEventError(f"a chunk that is none: {error}") from error

    def _choice(self, choice: dict[str, Any]) -> bytes:
        told = self._delta(choice.get("delta") or {}, choice)
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]
        return told

    def _calls_of(self, delta: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the pieces of calls in a delta."""
        return calls_of(delta, self._answer_id)

    def _last(self) -> bytes:
        self._is_over = True
        return self._stop()
