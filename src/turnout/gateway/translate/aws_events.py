"""This module cuts AWS event streams into messages: length, headers, payload and two checksums each.

Amazon Web Services, "Amazon event stream encoding" (`application/vnd.amazon.eventstream`).
"""

from __future__ import annotations

import struct
import zlib
from typing import final

from turnout.gateway.translate.events import MAX_EVENT_BYTES, BadEventError

_PRELUDE = struct.Struct(">III")
_TEXT = 7
_LENGTHS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type, where they are fixed."""


@final
class AwsEventCutter:
    """Gives back headers and payload of messages, each once and whole."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, block: bytes) -> list[tuple[dict[str, str], bytes]]:
        """Return the messages that are complete now; raises `BadEventError` for one that is damaged."""
        data, at, found = self._held + block, 0, []
        while len(data) - at >= _PRELUDE.size:
            length, num_header_bytes, checksum = _PRELUDE.unpack_from(data, at)
            if zlib.crc32(data[at : at + 8]) != checksum:
                raise BadEventError("a message whose beginning is damaged")
            if not 16 + num_header_bytes <= length <= MAX_EVENT_BYTES:
                raise BadEventError(f"a message of {length} bytes with {num_header_bytes} of headers")
            if len(data) - at < length:
                break
            found.append(_message(data[at : at + length], num_header_bytes))
            at += length
        self._held = data[at:]
        return found


def _message(message: bytes, num_header_bytes: int) -> tuple[dict[str, str], bytes]:
    if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
        raise BadEventError("a message that is damaged")
    end = _PRELUDE.size + num_header_bytes
    try:
        return _headers(message[_PRELUDE.size : end]), message[end:-4]
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise BadEventError(f"headers that cannot be read: {error}") from error


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers that are texts; the others say nothing here."""
    found, at = {}, 0
    while at < len(data):
        size = data[at]
        name = data[at + 1 : at + 1 + size].decode()
        kind, at = data[at + 1 + size], at + 2 + size
        if kind in (6, _TEXT):
            length, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        else:
            length = _LENGTHS[kind]
        if kind == _TEXT:
            found[name] = data[at : at + length].decode()
        at += length
    return found
