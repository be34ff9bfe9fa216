"""This module puts load on gateways at a third of the cost of aiohttp's client.

Beside an upstream on the same core, aiohttp's client is busier than the gateway while that streams; what one
then measures is the client. Requests are prepared as bytes here. Every answer is looked at all the same: its
status, its whole length, and of a stream every event up to `[DONE]`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np

_EVENT = b"data: {"
_END = b"0\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection, one request after the other.

    Parameters
    ----------
    head:
        Of every request, up to the number of its content-length.
    bodies:
        What is sent; shared by all clients, each takes the next.
    times:
        Takes the seconds to the first byte of a body and to the last of each request.
    num_events:
        The least number of events of an answer; 0 for answers that are no streams.
    """

    def __init__(
        self, head: bytes, bodies: Iterator[bytes], times: list[tuple[float, float]], num_events: int
    ) -> None:
        self.head, self.bodies, self.times, self.num_events = head, bodies, times, num_events
        self.done = asyncio.get_running_loop().create_future()
        self.parts: list[bytes] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = transport  # type: ignore[assignment]
        self._next()

    def _next(self) -> None:
        body = next(self.bodies, None)
        if body is None:
            self.transport.close()
            self.done.set_result(None)
            return
        self.parts, self.num_missing, self.first_s = [], -1, 0.0
        self.started_s = time.perf_counter()
        self.transport.write(b"%b%d\r\n\r\n%b" % (self.head, len(body), body))

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        if self.num_missing < 0:
            self.parts.append(data)
            if not self._begin(b"".join(self.parts)):
                return
        elif self.num_missing:
            self.num_missing -= len(data)
        else:
            self.parts.append(data)
            self.first_s = self.first_s or time.perf_counter()
        if self.has_length:
            is_whole = self.num_missing <= 0
        elif len(data) < len(_END):
            is_whole = b"".join(self.parts[-len(_END) :]).endswith(_END)
        else:
            is_whole = data.endswith(_END)
        if is_whole:
            self._end()

    def _begin(self, data: bytes) -> bool:
        """Read the head; return whether it was whole and something came after it."""
        head, found, body = data.partition(b"\r\n\r\n")
        if not found or not body:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(data)
            return False
        self.first_s = time.perf_counter()
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        self.has_length = length is not None
        self.parts, self.num_missing = [body], 0 if length is None else length - len(body)
        return True

    def _end(self) -> None:
        answer = b"".join(self.parts)
        is_short = answer.count(_EVENT) < self.num_events or (self.num_events and b"[DONE]" not in answer)
        if is_short or self.num_missing < 0:
            self._fail(answer)
            return
        self.times.append((self.first_s - self.started_s, time.perf_counter() - self.started_s))
        self._next()

    def _fail(self, got: bytes) -> None:
        self.transport.abort()
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"a wrong answer: {got[:300]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so where an answer was not whole."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"a connection was lost: {exc}"))


async def lean_block(
    url: str, sent: list[bytes], clients: int, *, num_events: int = 0
) -> tuple[np.ndarray, float]:
    """Do what `gateway_load.block` does: first-byte and total seconds (N, 2), and the span."""
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
    loop, times, bodies = asyncio.get_running_loop(), list[tuple[float, float]](), iter(sent)

    def client() -> Client:
        return Client(head.encode() + b"content-length: ", bodies, times, num_events)

    started_s = time.perf_counter()
    found = [await loop.create_connection(client, place.hostname, place.port) for _ in range(clients)]
    await asyncio.gather(*(protocol.done for _, protocol in found))
    duration_s = time.perf_counter() - started_s
    if len(times) != len(sent):
        raise RuntimeError(f"{len(sent)} requests and {len(times)} answers")
    return np.array(times), duration_s
