"""This module closes a connection whose client reads nothing of what is sent to it.

Such a client would keep its place, the upstream's answer and what its key holds for as long as it likes.
"""

from __future__ import annotations

import asyncio
import math
import struct
import sys
from typing import final

from turnout.gateway.bell import bell_of

if sys.platform != "win32":
    import fcntl
    import termios


@final
class Stalled:
    """Watches a connection while what is written to it waits for its client.

    Parameters
    ----------
    transport:
        The connection.
    limit_s:
        Seconds in which the client has to take something; it is closed after one to two times as many.
    """

    def __init__(self, transport: asyncio.Transport, limit_s: float) -> None:
        self.transport = transport
        self.limit_s = limit_s
        self.due_s = math.inf
        self._bell = bell_of(asyncio.get_running_loop())
        self._size = 0

    def begin(self) -> None:
        """Watch from now on."""
        self._size = _waiting(self.transport)
        self.due_s = self._bell.loop.time() + self.limit_s
        self._bell.add(self)

    def end(self) -> None:
        """Watch no longer: the client has read."""
        self._bell.remove(self)

    def ring(self) -> None:
        """Close a connection of which nothing was taken since the last look."""
        if _waiting(self.transport) < self._size:
            self.begin()
        else:
            self.transport.abort()


def _waiting(transport: asyncio.Transport) -> int:
    """Return how many bytes wait for a client: here, and in the system, which takes megabytes at a time."""
    size = transport.get_write_buffer_size()
    connection = transport.get_extra_info("socket")
    if sys.platform == "win32" or connection is None:
        return size
    try:
        told = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # a system that does not say
        return size
    return size + int(struct.unpack("i", told)[0])
