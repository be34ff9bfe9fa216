"""This module reads along with a stream of named events and changes none of its bytes."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar

from turnout.gateway.stream import MAX_HELD_BYTES, Scanner, UsageCount, event_start

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_ROLE_AND_END = 2
"""What the account takes off the number of events."""


class NamedScanner(Scanner):
    """Forwards whole events at a time; reads those with a mark, never one with text alone."""

    marks: ClassVar[tuple[bytes, ...]]
    """An event is read where its bytes hold one of these."""
    text_mark: ClassVar[bytes]
    """Stands once in every event with a piece of text."""

    def __init__(self) -> None:
        self.usage: UsageCount | None = None
        self.num_events = _ROLE_AND_END
        self.is_done = False
        self.is_finished = False
        self.has_error = False
        self.has_bad_event = False
        self._held = b""

    @property
    def is_complete(self) -> bool:
        """Whether the stream said that it ended: by its last event, a stop reason, or an error."""
        return self.is_done or self.is_finished or self.has_error

    def feed(self, block: bytes) -> bytes:
        """Return the bytes to forward now; an unfinished event is held until its end arrives."""
        data = self._held + block if self._held else block
        end = event_start(data, 0, len(data))
        if end == 0 and len(data) > MAX_HELD_BYTES:
            self._held, self.is_torn = b"", True
            return data
        whole, self._held = (data, b"") if end == len(data) else (data[:end], data[end:])
        self.num_events += whole.count(self.text_mark)
        if any(mark in whole for mark in self.marks):
            for event in _BOUNDARY.split(whole):
                if any(mark in event for mark in self.marks):
                    self.read(event)
        return whole

    @abstractmethod
    def read(self, event: bytes) -> None:
        """Take over what one event says."""
