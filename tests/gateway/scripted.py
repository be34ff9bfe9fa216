"""A real HTTP server on the loopback whose models say what a test tells them to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


class Cut(str):
    """An answer that the model had not ended; it says so."""


Say = Callable[[dict], "str | int | Iterator[str] | None"]
"""From the body of a request to an answer, a status, or None for an answer without text.

Pieces of an answer are sent as the events of a stream; they end early where the iterator raises `EOFError`.
"""


class Scripted(ThreadingHTTPServer):
    """Serves chat completions; `say` is by model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say: dict[str, Say] = {}
        self.seen: list[dict] = []
        self.release = threading.Event()
        self.usage = True
        self.retry_after: str | None = None

    @property
    def base_url(self) -> str:
        """What a provider takes."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def wait(self, body: dict) -> str:
        """Answer late: a model that hangs until the test is over."""
        self.release.wait(10)
        return "late"

    def asked(self, model: str) -> list[dict]:
        """Return the requests that a model got."""
        return [body for body in self.seen if body["model"] == model]


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(asked)
        said = self.server.say[asked["model"]](asked)
        if isinstance(said, Iterator):
            if asked.get("stream"):
                self._stream(said)
                return
            said = "".join(said)
        body: dict = {"error": {"message": "told to", "type": "t", "param": None, "code": "told"}}
        if not isinstance(said, int):
            message = {"role": "assistant", "content": said}
            body = {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": _finish(said)}],
            }
            if self.server.usage:
                body["usage"] = {**USAGE, "total_tokens": sum(USAGE.values())}
        content = json.dumps(body).encode()
        try:
            self.send_response(said if isinstance(said, int) else 200)
            self.send_header("content-type", "application/json")
            if isinstance(said, int) and self.server.retry_after is not None:
                self.send_header("retry-after", self.server.retry_after)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            return

    def _stream(self, said: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            piece = ""
            for piece in said:
                self._event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(piece)}]})
            self._event({"choices": [], "usage": {**USAGE, "total_tokens": sum(USAGE.values())}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (ConnectionError, EOFError):
            self.close_connection = True

    def _event(self, fields: dict) -> None:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        return


def _finish(said: object) -> str:
    return "length" if isinstance(said, Cut) else "stop"


@contextmanager
def scripted_server() -> Iterator[Scripted]:
    """Run a server in a thread of its own."""
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def script(*texts: str) -> Say:
    """Say one text after the other, by the number of assistant messages so far; the last one for ever."""

    def say(body: dict) -> str:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return texts[min(turn, len(texts) - 1)]

    return say
