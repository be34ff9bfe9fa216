"""A server on the loopback that writes raw bytes, and the client that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

import uvloop

from turnout.gateway.providers.client import Client

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request: its head, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def replies(*parts: bytes, is_closed: bool = False, wait_s: float = 0.0) -> Handle:
    """Answer every request with these bytes, each part in a packet of its own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(wait_s)
            if is_closed:
                writer.close()
                return

    return handle


class Stand:
    """A server, the client, and how many connections came."""

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None = None) -> None:
        self.handle, self.tls = handle, tls
        self.num_connections = 0
        self.handling: set = set()

    async def __aenter__(self) -> Stand:
        self.server = await asyncio.start_server(self._count, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        host = "127.0.0.1" if self.tls is None else "localhost"
        self.url = f"{scheme}://{host}:{self.server.sockets[0].getsockname()[1]}/v1/chat?a=b"
        self.client = Client(connect_s=2.0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()
        self.server.close()
        await asyncio.wait(self.handling, timeout=2)
        await asyncio.sleep(0)

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.handling.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.handle(reader, writer)
        writer.transport.abort()

    async def ask(self, body: bytes = b"{}") -> bytes:
        """Return the body of an answer."""
        response = await self.client.send("POST", self.url, {}, body)
        return await response.read()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own, of either kind."""
    for runner in (asyncio.run, uvloop.run):
        runner(asyncio.wait_for(test(), 20))
