"""This module estimates how much an answer said, for one that came without a usage: by its characters.

Blocks of a stream that are in no frame (`turnout.gateway.frame`) are not read on their way. A few are kept,
one for every so many bytes, and read where the stream has ended and nobody said what it took. Each is kept
with a chance in proportion to its length, so its share of text stands for as many bytes as the next one's
(sampling in proportion to size).
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import msgspec

MOST_KEPT = 64
"""Blocks that are kept of one stream."""
MOST_KEPT_BYTES = 128_000
"""Bytes that they may have together."""
LARGE_BYTES = 16_000
"""A block from this size on is read at once, and only its length and its characters are kept."""

_chance = random.Random()
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FIELDS = (b"data", b"event", b":", b"id", b"retry")
_UNSAID = frozenset(
    "id call_id item_id type role status annotations logprobs signature encrypted_content data result"
    " b64_json thinking_blocks reasoning_details extra_content".split()
)
"""Members of an answer whose texts the model did not write, or that repeat another one."""
_VALUES = ("input", "args")
"""Members that hold a value the model wrote as JSON."""


class _Read(NamedTuple):
    """A block that was read."""

    num_bytes: int
    chars: int


class Sample:
    """Blocks of one stream.

    Whoever passes blocks on adds their lengths to `num_bytes`, and gives the block to `keep` where the sum
    has come to `keep_from`.
    """

    __slots__ = ("_kept", "_stride", "keep_from", "num_bytes")

    def __init__(self) -> None:
        self.num_bytes = self.keep_from = 0
        self._kept: list[bytes | _Read] = []
        self._stride = 0

    def keep(self, block: bytes) -> None:
        """Keep a block, and fewer of the earlier ones where they have become too many."""
        kept = self._kept
        kept.append(block if len(block) < LARGE_BYTES else _Read(len(block), chars_of_events(block)))
        if self._stride == 0 and len(kept) <= MOST_KEPT and self.num_bytes <= MOST_KEPT_BYTES:
            return
        while len(kept) > MOST_KEPT or _num_held(kept) > MOST_KEPT_BYTES:
            kept = self._kept = self._thinned()
        if self._stride:
            self.keep_from = max(self.num_bytes, self.keep_from + self._wait())

    def chars(self) -> int:
        """Return the characters of all blocks."""
        read = [
            one if isinstance(one, _Read) else _Read(len(one), chars_of_events(one)) for one in self._kept
        ]
        # A block stands for its own bytes, or for as many as one was kept for.
        weights = [max(1.0, self._stride / one.num_bytes) for one in read]
        heard = sum([weight * one.num_bytes for weight, one in zip(weights, read, strict=True)])
        said = sum([weight * one.chars for weight, one in zip(weights, read, strict=True)])
        return round(said * self.num_bytes / heard) if heard else 0

    def _thinned(self) -> list[bytes | _Read]:
        """Return one block for twice as many bytes."""
        before = self._stride
        self._stride = max(2 * before, 2 * self.num_bytes // MOST_KEPT)
        kept, at, keep_from = [], 0, self._stride * _chance.random()
        for one in self._kept:
            at += max(one.num_bytes if isinstance(one, _Read) else len(one), before)
            if at >= keep_from:
                kept.append(one)
                keep_from = max(at, keep_from + self._wait())
        self.keep_from = self.num_bytes
        return kept

    def _wait(self) -> int:
        """Return the bytes until the next block is kept: by chance, so as not to fall in step."""
        return round(self._stride * (0.5 + _chance.random()))


def _num_held(kept: list[bytes | _Read]) -> int:
    return sum([0 if isinstance(one, _Read) else len(one) for one in kept])


def chars_of_events(block: bytes) -> int:
    """Return the characters that a block of server-sent events says, in any of the APIs spoken here."""
    return sum(map(_chars_of_event, _BOUNDARY.split(block)))


def chars_of_answer(body: bytes) -> int:
    """Return the characters that a whole answer says, in any of the APIs; bytes of what is none."""
    try:
        told = msgspec.json.decode(body)
        if not isinstance(told, dict):
            return len(body)
        choices = [choice.get("message") for choice in _objects(told.get("choices"))]
        return said_chars([choices, told.get("content"), told.get("output")])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(body)


def chars_of_raw(raw: msgspec.Raw) -> int:
    """Return the characters of a part of a request; of one with media, those of its texts."""
    data = bytes(raw)
    if b"base64" not in data and b"data:" not in data:
        return len(data)
    try:
        return said_chars(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(data)


def said_chars(value: object) -> int:
    """Return the characters of all texts of a part of an answer, but for names and marks."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") and ";base64," in value[:200] else len(value)
    if isinstance(value, list):
        return sum(map(said_chars, value))
    if isinstance(value, dict):
        # Some servers say thoughts twice, under their old name and their new one.
        twice = "reasoning" if value.get("reasoning_content") else None
        return sum(
            len(msgspec.json.encode(one)) if name in _VALUES and isinstance(one, dict) else said_chars(one)
            for name, one in value.items()
            if name not in _UNSAID and name != twice
        )
    return 0


def _chars_of_event(event: bytes) -> int:
    if not event:
        return 0
    if event.startswith(b"data:") and b"\n" not in event and b"\r" not in event:
        data = event[5:].strip()
    else:
        lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
        if not lines:
            # A piece of an event that was too long to hold has no field of its own.
            return 0 if event.lstrip(b"\r\n").startswith(_FIELDS) else len(event)
        data = b"\n".join(lines).strip()
    if data == b"[DONE]":
        return 0
    try:
        told = msgspec.json.decode(data)
        if not isinstance(told, dict):
            return len(data)
        return said_chars(
            [told.get("delta"), told.get("content_block")]
            + [choice.get("delta") for choice in _objects(told.get("choices"))]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(data)


def _objects(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
