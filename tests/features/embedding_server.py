"""This module serves `/v1/embeddings` on the loopback, with vectors that follow from the text."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


class EmbeddingServer(ThreadingHTTPServer):
    """Counts its requests, and fails the first `num_failures` of them."""

    def __init__(self, *, num_failures: int, num_dropped: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.num_failures = num_failures
        self.num_dropped = num_dropped
        self.batches: list[list[str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.batches.append(body["input"])
        if len(self.server.batches) <= self.server.num_failures:
            return self._answer(503, {"error": {"message": "overloaded", "type": "server_error"}})
        rows = [
            {"object": "embedding", "index": i, "embedding": vector(text)}
            for i, text in enumerate(body["input"])
        ]
        # A server may answer in any order; `index` is what counts.
        data = rows[::-1][self.server.num_dropped :]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return self._answer(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, content: object) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def vector(text: str) -> list[float]:
    """Return the vector that the server gives for a text."""
    seed = zlib.crc32(text.encode())
    return np.random.default_rng(seed).normal(size=5).tolist()


@contextmanager
def embedding_server(*, num_failures: int = 0, num_dropped: int = 0) -> Iterator[EmbeddingServer]:
    """Run the server for the time of a `with` block."""
    server = EmbeddingServer(num_failures=num_failures, num_dropped=num_dropped)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
