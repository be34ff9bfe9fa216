"""This module refuses a client that still sends: what it sends is thrown away until it has read the answer.

Who is cut off while it sends reports a broken connection and not the answer (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
from typing import final

_LINGER_S = 1.0
_LINGER_BYTES = 2**23


def turn_deaf(transport: asyncio.Transport, answer: bytes) -> None:
    """Send a last answer on a connection, and close it soon; its protocol hears nothing of it any more."""
    transport.set_protocol(_Deaf(transport))
    transport.write(answer)
    if transport.can_write_eof():
        transport.write_eof()


@final
class _Deaf(asyncio.Protocol):
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._num_bytes = 0
        self._end = asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._num_bytes += len(data)
        if self._num_bytes > _LINGER_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
