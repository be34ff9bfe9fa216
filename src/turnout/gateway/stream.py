"""This module watches server-sent events on their way through: it finds the usage and notices a cut.

Bytes are forwarded as they arrive, whole events at a time. JSON is parsed only for the few events that
carry usage or an error, never for one with text.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from typing import final

import msgspec

from turnout.gateway.errors import error_body
from turnout.gateway.heard import Sample, chars_of_events

DONE = b"data: [DONE]\n\n"
"""The event that ends a complete stream."""

MAX_HELD_BYTES = 1_000_000
"""Bytes of one unfinished event that are held back; beyond it they are forwarded unread."""

_chance = random.Random()
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
"""What stands between two events."""
_SAYS_FINISH = b'"finish_reason"'
_GOES_ON = (b'"finish_reason":null', b'"finish_reason": null')
_MARK = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]|"error"')
_MOST_FRAMES = 8
"""Of one stream; an upstream whose events differ in more than their text is not looked at so."""
_SAYS = re.compile(rb'"content"\s*:\s*"')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')


MOST_TOKENS = 1_000_000_000
"""Tokens of one request or answer beyond which a count is taken for a mistake."""


class CachedCount(msgspec.Struct):
    """What the provider's prompt cache gave."""

    cached_tokens: int | None = None


class UsageCount(msgspec.Struct):
    """The part of OpenAI's usage object that is accounted; a count that no answer can have is none.

    A count below zero would give money back, and one beyond all bounds would stop whoever writes it down.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedCount | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = _plausible(self.prompt_tokens)
        self.completion_tokens = _plausible(self.completion_tokens)

    @property
    def cached_tokens(self) -> int | None:
        """Input tokens that the provider read from its prompt cache; None where it did not say."""
        details = self.prompt_tokens_details
        cached = None if details is None else _plausible(details.cached_tokens)
        return cached if cached is None or self.prompt_tokens is None else min(cached, self.prompt_tokens)


def _plausible(count: int | None) -> int | None:
    return count if count is not None and 0 <= count <= MOST_TOKENS else None


class _Chunk(msgspec.Struct):
    usage: UsageCount | None = None
    choices: list[msgspec.Raw] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_usage(told: object) -> UsageCount | None:
    """Return what can be read of a usage object with members of other kinds; None where that is nothing."""
    if not told or not isinstance(told, dict):
        return None
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return UsageCount(
        prompt_tokens=whole_count(told.get("prompt_tokens")),
        completion_tokens=whole_count(told.get("completion_tokens")),
        prompt_tokens_details=CachedCount(cached_tokens=whole_count(cached)),
    )


def whole_count(value: object) -> int | None:
    """Return a count, also one that is written as 10.0; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return _plausible(int(value))


def _odd_chunk(data: bytes) -> _Chunk:
    """Return what can be read of a chunk of which some member is of another kind than it should be."""
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Chunk()
    if not isinstance(told, dict):
        return _Chunk()
    choices = told.get("choices")
    return _Chunk(
        usage=read_usage(told.get("usage")),
        choices=[msgspec.Raw(b"null")] if choices else None,
        error=msgspec.Raw(msgspec.json.encode(told.get("error"))),
    )


class Scanner(ABC):
    """Reads along with one stream on its way to the client."""

    usage: UsageCount | None = None
    """What the stream said of its usage, once it has."""
    is_usage_last: bool = False
    """Whether that is what the whole answer took, and not what it had taken so far."""
    num_events: int = 0
    """Events with a text so far, by a count that may take in others."""
    is_done: bool = False
    """Whether the answer is complete and said so: whatever happens after it is no failure."""
    has_error: bool = False
    """Whether the upstream sent an error event of its own."""
    has_bad_event: bool = False
    """Whether some event's data could not be read."""
    is_torn: bool = False
    """Whether an event was forwarded before its end had come, because it is too long to hold."""
    made: tuple[str, ...] = ()
    """Names of what the upstream now keeps, which a later request can be about."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether a stream that ends here has come to its end, and was not cut."""

    def __init__(self) -> None:
        self._sample = Sample()

    @abstractmethod
    def feed(self, block: bytes) -> bytes:
        """Return the bytes to forward now; an unfinished event is held until its end arrives."""

    def _hear(self, whole: bytes) -> None:
        """Take note of what is forwarded, for an estimate."""
        sample = self._sample
        sample.num_bytes += len(whole)
        if sample.num_bytes >= sample.keep_from:
            sample.keep(whole)

    def said_chars(self) -> int:
        """Return the characters that the stream has said so far, by an estimate."""
        return self._sample.chars()


@final
class EventScanner(Scanner):
    """Reads along with a stream of events.

    Parameters
    ----------
    strip_usage:
        Whether to take out the usage chunk, for a client that did not ask for it.
    """

    def __init__(self, *, strip_usage: bool) -> None:
        super().__init__()
        self.strip_usage = strip_usage
        self.usage: UsageCount | None = None
        self.num_events = 0
        self.is_done = False
        self.is_finished = False
        self.has_error = False
        self.has_bad_event = False
        self._held = b""
        self._frame: tuple[bytes, bytes] | None = None
        self._frame_bytes = self._num_frames = 0
        self._framed_bytes = self._keep_from = 0
        self._framed: list[tuple[int, bytes]] = []

    @property
    def is_complete(self) -> bool:
        """Whether the stream said that it ended: by `[DONE]`, a finish reason, or an error of its own."""
        return self.is_done or self.is_finished or self.has_error

    def feed(self, block: bytes) -> bytes:
        """Return the bytes to forward now; an unfinished event is held until its end arrives."""
        if self._frame is not None and not self._held and _is_framed(block, *self._frame):
            self.num_events += 1
            self._framed_bytes += len(block) - self._frame_bytes
            if self._framed_bytes >= self._keep_from:
                self._keep(block)
            return block
        data = self._held + block if self._held else block
        end = event_start(data, 0, len(data))
        if end == 0 and len(data) > MAX_HELD_BYTES:
            self._held, self.is_torn = b"", True
            self._hear(data)
            return data
        whole, self._held = (data, b"") if end == len(data) else (data[:end], data[end:])
        return self._scan(whole) if whole else b""

    def said_chars(self) -> int:
        """Return the characters in events that were read and, by their bytes, in those of a known frame."""
        num_bytes = sum([num for num, _ in self._framed])
        # Where nothing is masked, what stands between the frames is the text itself, a byte a character.
        chars = sum(
            [
                num if block.isascii() and b"\\" not in block else chars_of_events(block)
                for num, block in self._framed
            ]
        )
        # A character may be written in up to six bytes.
        framed = self._framed_bytes * chars / num_bytes if num_bytes else self._framed_bytes
        # A short stream may come as one block, of which no frame was taken on its way.
        frame = self._frame or _frame_of(self._sample.first_event())
        return self._sample.chars(frame) + round(framed)

    def _keep(self, block: bytes) -> None:
        """Keep a block of a known frame, for how many bytes a character takes: one for half as many again."""
        self._framed.append((len(block) - block.count(b"\n\n") * self._frame_bytes, block))
        self._keep_from = 1 + round(self._framed_bytes * (1.2 + 0.6 * _chance.random()))

    def _scan(self, whole: bytes) -> bytes:
        """Read the events that carry a mark; the others, which are nearly all, say nothing new but a text."""
        if self._frame is not None and (num_events := _num_framed(whole, *self._frame)):
            self.num_events += num_events
            self._hear_framed(whole, num_events)
            return whole
        scanned = self._scan_all(whole)
        if self._num_frames < _MOST_FRAMES and scanned is whole and not self.is_finished:
            self._frame, self._num_frames = _frame_of(whole), self._num_frames + 1
            if self._frame is not None:
                self._frame_bytes = sum(map(len, self._frame)) + len(b"\n\n")
                if num_events := _num_framed(whole, *self._frame):
                    self._hear_framed(whole, num_events)
                    return whole
        self._hear(whole)
        return scanned

    def _hear_framed(self, whole: bytes, num_events: int) -> None:
        """Take note of events of the known frame, for an estimate."""
        self._framed_bytes += len(whole) - num_events * self._frame_bytes
        if self._framed_bytes >= self._keep_from:
            self._keep(whole)

    def _scan_all(self, whole: bytes) -> bytes:
        num_events = whole.count(b"\n\n") + whole.count(b"\r\n\r\n") + whole.count(b"\r\r")
        self.num_events += num_events
        # Counting is cheap, a pattern is not, and nearly every chunk says that it is not the last.
        if not self.is_finished and whole.count(_SAYS_FINISH) > sum([whole.count(none) for none in _GOES_ON]):
            self.is_finished = _FINISH.search(whole) is not None
        # Only a block in which some event does not begin like a chunk is cut apart.
        num_good = whole.count(b'data: {"') + whole.count(b'data:{"') + whole.count(b"\n\n" + DONE)
        if num_good < num_events and not self.has_bad_event:
            self.has_bad_event = any(_is_bad(event) for event in BOUNDARY.split(whole))
        if b'"usage"' not in whole and b"[DONE]" not in whole and b'"error"' not in whole:
            return whole
        kept, at = [], 0
        for match in _MARK.finditer(whole):
            if match.start() < at:
                continue
            start = event_start(whole, at, match.start())
            boundary = BOUNDARY.search(whole, match.end())
            stop = len(whole) if boundary is None else boundary.end()
            kept.append(whole[at:start])
            if not self._is_stripped(whole[start:stop]):
                kept.append(whole[start:stop])
            at = stop
        return b"".join(kept) + whole[at:]

    def _is_stripped(self, event: bytes) -> bool:
        data = event_data(event)
        if data.strip() == b"[DONE]":
            self.is_done = True
            self.is_usage_last |= self.usage is not None
            return False
        try:
            chunk = _chunk_decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.has_bad_event |= _is_bad(event)
            chunk = _odd_chunk(data)
        if bytes(chunk.error) != b"null":
            self.has_error = True
        if chunk.usage is None:
            return False
        # Some servers count along in every chunk: only the count after the last text is that of the answer.
        self.is_usage_last = self.is_finished
        self.usage = chunk.usage
        return self.strip_usage and not chunk.choices


def _frame_of(whole: bytes) -> tuple[bytes, bytes] | None:
    """Return what stands before and after the text of a block's last event; None where there is no text."""
    event = whole[:-2].rpartition(b"\n\n")[2]
    said = _SAYS.search(event)
    if said is None or b"\r" in event or not event.startswith(b'data: {"'):
        return None
    end = event.find(b'"', said.end())
    # A mark within the text is no end of it.
    return (event[: said.end()], event[end:]) if end >= 0 and event[end - 1 : end] != b"\\" else None


def _is_framed(block: bytes, before: bytes, after: bytes) -> bool:
    """Whether a block is one event that `_num_framed` would count: most are, and it is seen sooner here."""
    end = len(block) - len(after) - 2
    return (
        block.startswith(before)
        and block.endswith(b"\n\n")
        and block.startswith(after, end)
        and block.find(b'"', len(before)) == end
        and block.find(b"\n", len(before)) == len(block) - 2
    )


def _num_framed(whole: bytes, before: bytes, after: bytes) -> int:
    """Return the number of events of a block where all differ from one that was read by their text alone.

    Between `before`, which opens a text, and `after`, which begins with the sign that ends it, no such sign
    may stand: a text that holds one, masked, is no longer seen from outside, and is looked at as a whole.
    """
    events = whole.split(b"\n\n")
    if events.pop():
        return 0
    low, size = len(before), len(after)
    for event in events:
        is_framed = event.startswith(before) and event.endswith(after)
        if not is_framed or event.find(b'"', low) != len(event) - size:
            return 0
    return len(events)


def event_start(data: bytes, low: int, high: int) -> int:
    """Return the place after the last end of an event in `data[low:high]`, or `low`."""
    if high == len(data) and high - low > 1 and data.endswith(b"\n\n"):
        return high  # nearly always: upstreams write whole events
    places = [(data.rfind(end, low, high), len(end)) for end in _ENDS]
    return max((place + length for place, length in places if place >= 0), default=low)


def events_in(whole: bytes) -> list[bytes]:
    """Return the events of a block that holds whole ones."""
    return [event for event in BOUNDARY.split(whole) if event]


def event_data(event: bytes) -> bytes:
    """Return the data of one event: its `data:` lines joined by newlines, without one leading space."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def _is_bad(event: bytes) -> bool:
    """Whether an event has data that is neither a JSON object nor `[DONE]`; a comment has none."""
    data = event_data(event).strip()
    if data in (b"", b"[DONE]"):
        return False
    try:
        _object_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def error_event(message: str, *, code: str) -> bytes:
    """Return the event that ends a cut stream; OpenAI's clients raise an APIError on it."""
    return b"data: " + error_body(message, kind="upstream_error", param=None, code=code) + b"\n\n"
