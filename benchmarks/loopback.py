"""This module is an upstream that answers chat requests at once, so that a benchmark sees the gateway alone.

`python -m benchmarks.loopback 50` prints its port and answers until it is killed; a stream has 50
text events. A second number are milliseconds between them; each event then says when it was written, by the
system's monotonic clock. A third is the share of requests that fail. It reads just enough of HTTP to be fast.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import cast

import uvloop

_CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _whole() -> bytes:
    message = {"role": "assistant", "content": "word " * 60}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 80, "completion_tokens": 60, "total_tokens": 140},
    }
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(data),
        data,
    )


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**_CHUNK, "choices": [choice]}).encode() + b"\n\n"


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


WHOLE = _whole()
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = _frame(_event({"content": "word "}, None))
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}"
LAST = _frame(_event({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _stamped() -> bytes:
    return _frame(_event({"content": f"{time.monotonic():.6f} "}, None))


class Upstream(asyncio.Protocol):
    """One connection; requests come one after the other, each with a content-length."""

    num_events = 50
    gap_s = 0.0
    fault_share = 0.0
    """Of requests that fail: one half with a status 500, the other by a connection that is cut."""
    rng = random.Random(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        # uvloop's transports are no subclass.
        self.transport, self.data = cast("asyncio.Transport", transport), b""
        self.call_soon = asyncio.get_running_loop().call_soon

    def data_received(self, data: bytes) -> None:
        """Answer when the request is complete."""
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
        if len(body) < sum(lengths):
            return
        self.data = b""
        is_faulty = self.fault_share > 0 and self.rng.random() < self.fault_share
        if is_faulty and self.rng.random() < 0.5:
            self.transport.write(FAILED)
        elif is_faulty:
            self.transport.write(STREAM + EVENT if b'"stream":true' in body else WHOLE[:40])
            self.transport.close()
        elif b'"stream":true' in body and not self.gap_s:
            self.transport.write(STREAM)
            self.num_left = self.num_events
            self.step()
        elif b'"stream":true' in body:
            self.streaming = asyncio.get_running_loop().create_task(self.stream())
        else:
            self.transport.write(WHOLE)

    def step(self) -> None:
        """Write one event, in a turn of the loop of its own."""
        if self.transport.is_closing():
            return
        if self.num_left:
            self.num_left -= 1
            self.transport.write(EVENT)
            self.call_soon(self.step)
        else:
            self.transport.write(LAST)

    async def stream(self) -> None:
        """Write the events one by one, each at its time."""
        self.transport.write(STREAM)
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        for _ in range(self.num_events):
            self.transport.write(_stamped())
            next_s += self.gap_s
            await asyncio.sleep(max(0.0, next_s - loop.time()))
            if self.transport.is_closing():
                return
        self.transport.write(LAST)


async def main(num_events: int, gap_ms: float = 0.0, fault_share: float = 0.0) -> None:
    """Listen on a free port, print it, and serve."""
    Upstream.num_events, Upstream.gap_s, Upstream.fault_share = num_events, gap_ms / 1e3, fault_share
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
