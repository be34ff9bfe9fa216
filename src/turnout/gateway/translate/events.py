"""This module cuts streams into events whatever blocks they arrive in, and runs a translator over them."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Chunks, Fault

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES = 32_000_000
"""Bytes of one event; a longer one is no event."""

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class BadEventError(ValueError):
    """An event of the upstream could not be read; what cannot be read cannot be translated."""


@final
class EventCutter:
    """Gives back the data of server-sent events, each once and whole."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, block: bytes) -> list[bytes]:
        """Return the data of the events that are complete now; comments have none and are left out."""
        # A boundary may begin in what is held, at most three bytes before its end.
        begin = max(0, len(self._held) - 3)
        data = self._held + block
        found, at = [], 0
        for match in _BOUNDARY.finditer(data, begin):
            if payload := _data(data[at : match.start()]):
                found.append(payload)
            at = match.end()
        self._held = data[at:]
        if len(self._held) > MAX_EVENT_BYTES:
            raise BadEventError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return found


class Translator(ABC):
    """Turns the blocks of one stream into those of another language."""

    @property
    def reported(self) -> Mapping[str, Any]:
        """The usage so far, in chat's words; empty where none was told."""
        return {}

    @abstractmethod
    def feed(self, block: bytes) -> bytes:
        """Return what the client may be told now; raises `BadEventError`."""

    def end(self) -> bytes:
        """Return what is left to tell when the upstream has closed; nothing where it was cut."""
        return b""


@final
class Translated(Chunks):
    """A stream in another language.

    Parameters
    ----------
    chunks:
        The upstream's own stream.
    translator:
        Turns it into the client's.
    upstream:
        Name of the provider, for messages.
    """

    def __init__(self, chunks: Chunks, translator: Translator, *, upstream: str) -> None:
        self._chunks = chunks
        self._translator = translator
        self._upstream = upstream
        self._is_over = False

    @property
    def reported(self) -> Mapping[str, Any]:
        """What the translator has read of the usage, or whoever wrote for it."""
        return self._translator.reported or self._chunks.reported

    async def read(self) -> bytes:
        """Return what has been translated, nothing at the end; raises `Fault` for what cannot be read."""
        while not self._is_over:
            block = await self._chunks.read()
            try:
                told = self._translator.feed(block) if block else self._translator.end()
            except BadEventError as error:
                raise _bad_event(self._upstream, error) from error
            except Exception as error:  # The edge: an event that nobody has thought of ends one stream.
                logger.exception("a stream of the upstream %r could not be translated", self._upstream)
                raise _bad_event(self._upstream, error) from error
            self._is_over = not block
            if told:
                return told
        return b""

    def close(self) -> None:
        """Close the upstream's stream."""
        self._chunks.close()


def write_event(value: object, name: str | None = None) -> bytes:
    """Return one event with a JSON value; `name` is its `event` line."""
    data = b"data: " + msgspec.json.encode(value) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


def read_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object of an event; raises `BadEventError`."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEventError(str(error)) from error


def _data(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def unread_answer(upstream: str, error: Exception) -> Fault:
    """Return the fault of a whole answer that nobody could translate, after a line in the log."""
    logger.error("an answer of the upstream %r could not be translated", upstream, exc_info=error)
    message = sentence(
        f"the upstream {upstream!r} sent an answer that cannot be translated",
        allowed="an answer of its own API",
        got=f"{type(error).__name__}: {error}",
        do="ask again, or name another model",
    )
    return Fault(ApiError(502, message, code="upstream_error", kind="upstream_error"), is_charge_unknown=True)


def _bad_event(upstream: str, error: Exception) -> Fault:
    message = sentence(
        f"the upstream {upstream!r} sent an event that cannot be translated",
        allowed="an event of its own API",
        got=str(error),
        do="what was received is incomplete; ask again",
    )
    return Fault(
        ApiError(502, message, code="upstream_bad_event", kind="upstream_error"), may_fall_back=False
    )
