"""This module relays requests to an upstream and does nothing else: as fast as a gateway in Python could be.

`python -m benchmarks.bare_relay PORT` prints its own port. It reads just enough of a head to know where a
request and an answer end, and passes the bytes on as they come: no decision, no account, no look at an event.
What it makes is the bound of what clients and upstream leave room for on the cores of a benchmark.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar, cast

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_LAST = b"0\r\n\r\n"
"""Ends an answer in chunks; events come whole."""


def _size_of(head: bytes) -> int | None:
    """Return the length that a head tells."""
    lines = head.lower().split(b"\r\n")
    return next((int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH)), None)


class Upward(asyncio.Protocol):
    """A connection to the upstream; one request at a time."""

    idle: ClassVar[list[Upward]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, client: Client, request: bytes) -> None:
        """Send a request whose answer a client gets."""
        self.client, self.num_missing = client, -1
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Pass a part of the answer on."""
        if self.num_missing == -1:
            head, _, body = data.partition(_HEAD_END)
            size = _size_of(head)
            self.is_chunked = size is None
            self.num_missing = 1 if size is None else size - len(body)
        elif not self.is_chunked:
            self.num_missing -= len(data)
        self.client.transport.write(data)
        if data.endswith(_LAST) if self.is_chunked else self.num_missing <= 0:
            self.idle.append(self)


class Client(asyncio.Protocol):
    """A connection of a client; its requests have a content-length and come one after the other."""

    port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport, self.data = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        """Pass a request on when it is whole."""
        self.data += data
        head, found, body = self.data.partition(_HEAD_END)
        if not found or len(body) < (_size_of(head) or 0):
            return
        request, self.data = self.data, b""
        if Upward.idle:
            Upward.idle.pop().ask(self, request)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self.connect(request))

    async def connect(self, request: bytes) -> None:
        """Ask over a new connection."""
        loop = asyncio.get_running_loop()
        _, upward = await loop.create_connection(Upward, "127.0.0.1", self.port)
        upward.ask(self, request)


async def main(port: int) -> None:
    """Listen on a free port, print it, and serve."""
    Client.port = port
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
