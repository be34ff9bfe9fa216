"""This module watches server-sent events on their way through: it finds the usage and notices a cut.

Bytes are forwarded as they arrive, whole events at a time. JSON is parsed only for the few events that
carry usage or an error, never for one with text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, final

import msgspec

from turnout.gateway.errors import error_body
from turnout.gateway.frame import Frame, PaddedFrame, frame_of
from turnout.gateway.heard import Sample

DONE = b"data: [DONE]\n\n"
"""The event that ends a complete stream."""

MAX_HELD_BYTES = 1_000_000
"""Bytes of one unfinished event that are held back; beyond it they are forwarded unread."""

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
"""What stands between two events."""
_SAYS_FINISH = b'"finish_reason"'
_GOES_ON = (b'"finish_reason":null', b'"finish_reason": null')
_MARK = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]|"error"')
_MOST_LOOKS = 8
"""For a frame in one stream; an upstream whose events differ in more than their text has none."""
_NO_ERROR = (b"null", b"false", b'""')
_FAILS = re.compile(rb'"finish_reason"\s*:\s*"error"')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')


MOST_TOKENS = 1_000_000_000
"""Tokens of one request or answer beyond which a count is taken for a mistake."""


class CachedCount(msgspec.Struct):
    """What the provider's prompt cache gave and took."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """Those of them that are kept for an hour."""
    audio_tokens: int | None = None


class SaidCount(msgspec.Struct):
    """What the output holds besides text."""

    audio_tokens: int | None = None


class UsageCount(msgspec.Struct):
    """The part of OpenAI's usage object that is accounted; a count that no answer can have is none.

    A count below zero would give money back, and one beyond all bounds would stop whoever writes it down.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedCount | None = None
    completion_tokens_details: SaidCount | None = None
    total_tokens: int | None = None

    def __post_init__(self) -> None:
        tokens_in = self.prompt_tokens = _plausible(self.prompt_tokens)
        tokens_out = self.completion_tokens = _plausible(self.completion_tokens)
        if self.total_tokens and tokens_in is not None and tokens_out is not None:
            # Some servers count thoughts beside the answer, and only the total has them.
            self.completion_tokens = max(tokens_out, (_plausible(self.total_tokens) or 0) - tokens_in)

    @property
    def cached_tokens(self) -> int | None:
        """Input tokens that the provider read from its prompt cache; None where it did not say."""
        details = self.prompt_tokens_details
        cached = None if details is None else _plausible(details.cached_tokens)
        return cached if cached is None or self.prompt_tokens is None else min(cached, self.prompt_tokens)

    @property
    def has_audio(self) -> bool:
        """Whether some of the tokens are no text, which has another price."""
        details = (self.prompt_tokens_details, self.completion_tokens_details)
        return any(one is not None and one.audio_tokens for one in details)

    @property
    def written_tokens(self) -> tuple[int, int]:
        """Input tokens that the provider wrote to its prompt cache, and those of them kept for an hour."""
        details = self.prompt_tokens_details
        if details is None or not details.cache_write_tokens:
            return 0, 0
        rest = (self.prompt_tokens or 0) - (self.cached_tokens or 0)
        written = min(_plausible(details.cache_write_tokens) or 0, rest)
        return written, min(_plausible(details.cache_write_1h_tokens) or 0, written)


def _plausible(count: int | None) -> int | None:
    return count if count is not None and 0 <= count <= MOST_TOKENS else None


class _Chunk(msgspec.Struct):
    usage: UsageCount | None = None
    object: Any = None
    choices: list[msgspec.Raw] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_usage(told: object) -> UsageCount | None:
    """Return what can be read of a usage object with members of other kinds; None where that is nothing."""
    if not told or not isinstance(told, dict):
        return None
    details = told.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    said = told.get("completion_tokens_details")
    audio = whole_count(said.get("audio_tokens")) if isinstance(said, dict) else None
    return UsageCount(
        prompt_tokens=whole_count(told.get("prompt_tokens")),
        completion_tokens=whole_count(told.get("completion_tokens")),
        total_tokens=whole_count(told.get("total_tokens")),
        completion_tokens_details=SaidCount(audio_tokens=audio),
        prompt_tokens_details=CachedCount(
            **{name: whole_count(details.get(name)) for name in CachedCount.__struct_fields__}
        ),
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
        object=told.get("object"),
        choices=[msgspec.Raw(b"null")] if choices else None,
        error=msgspec.Raw(msgspec.json.encode(told.get("error"))),
    )


class Scanner(ABC):
    """Reads along with one stream on its way to the client."""

    usage: UsageCount | None = None
    """What the stream said of its usage, once it has."""
    is_usage_last: bool = False
    """Whether that is what the whole answer took, and not what it had taken so far."""
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
    response_id: str | None = None
    """The name of the answer itself, where the upstream may go on with it when nobody reads it."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether a stream that ends here has come to its end, and was not cut."""

    def __init__(self) -> None:
        self._sample = Sample()
        self._num_events = 0

    @property
    def num_events(self) -> int:
        """Events with a text so far, by a count that may take in others."""
        return self._num_events

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
        self.is_done = False
        self.is_finished = False
        self.has_error = False
        self.has_bad_event = False
        self._held = b""
        self._frame: Frame | PaddedFrame | None = None
        self._frames: list[Frame | PaddedFrame] = []
        self._num_looks = 0

    @property
    def num_events(self) -> int:
        """Events so far."""
        return self._num_events + sum([frame.num_events for frame in self._frames])

    @property
    def is_complete(self) -> bool:
        """Whether the stream said that it ended: by `[DONE]`, a finish reason, or an error of its own."""
        return self.is_done or self.is_finished or self.has_error

    def feed(self, block: bytes) -> bytes:
        """Return the bytes to forward now; an unfinished event is held until its end arrives."""
        if self._frame is not None and not self._held and self._frame.count(block):
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
        """Return the characters said so far: of events in a frame as they are, of others by an estimate."""
        return self._sample.chars() + sum([frame.num_chars for frame in self._frames])

    def _scan(self, whole: bytes) -> bytes:
        """Read what is not in a frame; what is, which is nearly all, says nothing new but a text."""
        start = end = 0
        if self._frame is not None:
            start, end = self._framed(whole, self._frame)
        if not end and (frame := self._next_frame(whole)) is not None:
            start, end = self._framed(whole, frame)
            if end:
                self._frame = frame
                self._frames.append(frame)
        if end == len(whole) and not start:
            return whole
        if not end:
            return self._scan_all(whole)
        first, last = whole[:start], whole[end:]
        return b"".join([first and self._scan_all(first), whole[start:end], last and self._scan_all(last)])

    def _framed(self, whole: bytes, frame: Frame | PaddedFrame) -> tuple[int, int]:
        """Return from where to where a block holds events of a frame, which are counted; 0, 0 for none."""
        start, end = frame.cut(whole)
        return (start, end) if end and frame.count(whole[start:end]) else (0, 0)

    def _next_frame(self, whole: bytes) -> Frame | PaddedFrame | None:
        """Return the frame of a block's second or only event; None where more than a text is in it."""
        if self._num_looks >= _MOST_LOOKS or self.is_finished:
            return None
        self._num_looks += 1
        start = whole.find(b"\n\n") + 2
        event = whole[start : whole.find(b"\n\n", start) + 2] if 2 <= start < len(whole) else whole
        if _MARK.search(event) is not None or _FINISH.search(event) is not None:
            return None
        return frame_of(event)

    def _scan_all(self, whole: bytes) -> bytes:
        self._hear(whole)
        num_events = whole.count(b"\n\n") + whole.count(b"\r\n\r\n") + whole.count(b"\r\r")
        self._num_events += num_events
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
        if bytes(chunk.error) not in _NO_ERROR or chunk.object == "error" or _FAILS.search(data):
            self.has_error = True
        if chunk.usage is None:
            return False
        # Some servers count along in every chunk: only the count after the last text is that of the answer.
        self.is_usage_last = self.is_finished
        self.usage = chunk.usage
        return self.strip_usage and not chunk.choices


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
