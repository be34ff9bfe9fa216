"""This module reads along with a stream of named events and changes none of its bytes."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar

from turnout.gateway.stream import MAX_HELD_BYTES, Scanner, UsageCount, event_start

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class NamedScanner(Scanner):
    """Forwards whole events at a time; reads those with a mark, never one with text alone."""

    marks: ClassVar[tuple[bytes, ...]]
    """An event is read where its bytes hold one of these."""
    text_mark: ClassVar[bytes]
    """Stands once in every event with a piece of text."""

    def __init__(self) -> None:
        super().__init__()
        self.usage: UsageCount | None = None
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
        if self._held or not block.endswith(b"\n\n"):
            return self._feed_rest(block)
        # Nearly always: upstreams write whole events.
        sample = self._sample
        sample.num_bytes += len(block)
        if sample.num_bytes >= sample.keep_from:
            sample.keep(block)
        self._scan(block)
        return block

    def _feed_rest(self, block: bytes) -> bytes:
        """Take a block that begins or ends within an event."""
        data = self._held + block
        end = event_start(data, 0, len(data))
        if end == 0 and len(data) > MAX_HELD_BYTES:
            self._held, self.is_torn = b"", True
            self._hear(data)
            return data
        whole, self._held = data[:end], data[end:]
        if whole:
            self._hear(whole)
            self._scan(whole)
        return whole

    def _scan(self, whole: bytes) -> None:
        self._num_events += whole.count(self.text_mark)
        for mark in self.marks:
            if mark in whole:
                break
        else:
            return
        for event in _BOUNDARY.split(whole):
            if any(mark in event for mark in self.marks):
                self.read(event)

    @abstractmethod
    def read(self, event: bytes) -> None:
        """Take over what one event says."""
