"""This module knows the events of a stream that differ in their text alone, and counts what they say.

Nearly all events of an answer in chat are like this. One of them is read; what stands before and after its
text is its frame. A block of such events is then recognised as a whole: what stands where the texts should
be, put into frames again, must give the same block. OpenAI pads its events to like lengths, so that two texts
differ, of which one says nothing: their frame has a middle, too.
"""

from __future__ import annotations

import re
from typing import Any, final

import msgspec

from turnout.gateway.heard import said_chars

_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments)"\s*:\s*"')
_END = b"\n\n"
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"')
_TEXT = rb'((?:[^"\\\n]++|\\[^\n])*+)'
"""A text of JSON, with its masks."""


class _Choice(msgspec.Struct):
    delta: dict[str, Any] = {}


class _Event(msgspec.Struct):
    choices: list[_Choice]


_event_decoder = msgspec.json.Decoder(_Event)
_text_decoder = msgspec.json.Decoder(str)


@final
class Frame:
    """What stands before and after the text of most events of one stream.

    Parameters
    ----------
    before, after:
        `before` ends in the sign that opens the text; `after` begins with the one that ends it, and ends with
        the event.
    """

    __slots__ = ("_after", "_before", "_between", "_from", "_to", "num_chars", "num_events")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after, self._between = before, after, after + before
        self._from, self._to = len(before), -len(after)
        self.num_chars = self.num_events = 0
        """Of the blocks that were counted."""

    def count(self, block: bytes) -> bool:
        """Count what a block says; False where not all of it are events of this frame."""
        if not block.startswith(self._before) or not block.endswith(self._after):
            return False
        num_events, text = 1, block[self._from : self._to]
        if len(block) >= 2 * len(self._between):
            to = self._to + len(_END)
            # One byte is found in half the time of two.
            texts = [event[self._from : to] for event in block.split(b"\n")[:-1:2]]
            if self._between.join(texts) != text:
                return False
            num_events, text = len(texts), b"".join(texts)
        elif len(block) < len(self._between):
            return False
        if b"\n" in text:
            return False
        num_chars = len(text)
        if b'"' in text or b"\\" in text or not text.isascii():
            # Which of two marks is masked is not seen from outside.
            num_chars = -1 if b"\\" + self._after in block else _length_of(text)
            if num_chars < 0:
                return False
        self.num_chars += num_chars
        self.num_events += num_events
        return True

    def cut(self, block: bytes) -> tuple[int, int]:
        """Return from where to where events of this frame may stand in a block that holds others too."""
        start, end = block.find(self._before), block.rfind(self._after)
        if start < 0 or end < start or (start and not block.endswith(_END, 0, start)):
            return 0, 0
        return start, end + len(self._after)


@final
class PaddedFrame:
    """What stands before, between and after the text and the padding of most events of one stream.

    Parameters
    ----------
    before, middle, after:
        `middle` begins with the sign that ends the text, and ends in the one that opens the padding.
    """

    __slots__ = ("_events", "_one", "_size", "num_chars", "num_events")

    def __init__(self, before: bytes, middle: bytes, after: bytes) -> None:
        one = _TEXT.join(map(re.escape, (before, middle, after)))
        self._one = re.compile(one)
        self._events = re.compile(b"(?:%b)++" % one)
        self._size = len(before) + len(middle) + len(after)
        self.num_chars = self.num_events = 0
        """Of the blocks that were counted."""

    def count(self, block: bytes) -> bool:
        """Count what a block says; False where not all of it are events of this frame."""
        found: list[tuple[bytes, bytes]] = self._one.findall(block)
        text = b"".join([text for text, _ in found])
        size = self._size * len(found) + len(text) + sum([len(padding) for _, padding in found])
        if not found or size != len(block):
            return False
        is_plain = text.isascii() and b"\\" not in text
        num_chars = len(text) if is_plain else _length_of(text)
        if num_chars < 0:
            return False
        self.num_chars += num_chars
        self.num_events += len(found)
        return True

    def cut(self, block: bytes) -> tuple[int, int]:
        """Return from where to where events of this frame stand first in a block that holds others too."""
        found = self._events.search(block)
        if found is None or (found.start() and not block.endswith(_END, 0, found.start())):
            return 0, 0
        return found.span()


def frame_of(event: bytes) -> Frame | PaddedFrame | None:
    """Return the frame of a whole event; None where it has no text, or more to say than that."""
    said = _SAYS.search(event)
    if said is None or not event.startswith(b'data: {"') or event.find(b"\n") != len(event) - len(_END):
        return None
    end = event.find(b'"', said.end())
    # A mark within the text is no end of it.
    if end < 0 or event[end - 1 : end] == b"\\" or b"\r" in event:
        return None
    before, after = event[: said.end()], event[end:]
    if not _is_silent(before[5:] + after):
        return None
    padding = _PADDING.search(after)
    if padding is None:
        return Frame(before, after)
    stop = after.find(b'"', padding.end())
    if after[stop - 1 : stop] == b"\\":
        return None
    return PaddedFrame(before, after[: padding.end()], after[stop:])


def _length_of(text: bytes) -> int:
    """Return the characters of a text with masks, -1 for what is none."""
    try:
        return len(_text_decoder.decode(b'"%b"' % text))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return -1


def _is_silent(event: bytes) -> bool:
    """Whether an event whose text was taken out says nothing."""
    try:
        choices = _event_decoder.decode(event).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return said_chars([choice.delta for choice in choices]) == 0
