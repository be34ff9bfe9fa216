"""This module is one connection to an upstream: a request goes out, and its response is read by httptools.

It does what this gateway needs of HTTP/1.1 and no more: one request at a time, bodies by length, in chunks
or up to the end of the connection, interim responses passed over, gzip and deflate undone where an upstream
sends them unasked. Reading stops while nobody takes what has arrived.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import cast, final

import httptools

from turnout.gateway.providers.response import HIGH_BYTES, BrokenError, DroppedError, Response

MAX_HEAD_BYTES = 2**16
"""Bytes of a response's headers; more are no response."""

_PIECE_BYTES = 2**17
_NO_BODY = (204, 304)


@final
class Connection(asyncio.Protocol):
    """One connection; the loop calls it, and so does its parser.

    Parameters
    ----------
    on_free:
        Told when a response is whole and another request may be sent.
    on_lost:
        Told when the connection is closed, whoever closed it.
    """

    __slots__ = (
        "_blocks",
        "_coding",
        "_has_length",
        "_head_bytes",
        "_is_interim",
        "_is_kept",
        "_is_paused",
        "_is_sent",
        "_is_stuck",
        "_loop",
        "_on_free",
        "_on_lost",
        "_parser",
        "_response",
        "_transport",
        "idle_since_s",
        "on_body",
    )

    def __init__(self, on_free: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._response: Response | None = None
        self._is_paused = self._is_stuck = False
        self._is_sent = True
        self._is_interim = self._is_kept = self._has_length = False
        self._head_bytes = 0
        self._coding = b""
        self._blocks: list[bytes] = []
        self.on_body = self._blocks.append
        """Takes a part of a body from the parser: many come at once, and none costs a call of ours."""
        self.idle_since_s = 0.0
        """When it was last given back, by the loop's clock."""

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Response:
        """Send a small request; return its response, of which nothing is there yet."""
        response = self._begin()
        if self._transport is None:
            response.fail(DroppedError("closed"))
        else:
            self._transport.writelines([head, body])
        return response

    async def send_in_pieces(self, head: bytes, body: bytes) -> Response:
        """Send a large request; stop where an answer, or the end, comes before all of it is out."""
        response = self._begin()
        self._is_sent = False
        view = memoryview(body)
        for at in range(0, len(body), _PIECE_BYTES):
            while self._is_stuck and not response.has_begun:
                await response.changed()
            if response.has_begun or self._transport is None:
                return response
            self._transport.writelines([head, view[at : at + _PIECE_BYTES]])
            head = b""
            await asyncio.sleep(0)
        self._is_sent = True
        return response

    def drop(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def go_on(self) -> None:
        """Read again, where reading was stopped."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _rest(self) -> None:
        """Read no more until somebody has taken what is there."""
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _begin(self) -> Response:
        response = self._response = Response(self, self._loop, self._blocks)
        return response

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport."""
        # uvloop's transports are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        parser = self._parser = httptools.HttpResponseParser(self)
        # As far as browsers and other clients are lenient, too; a response cannot smuggle a request.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; bytes that nobody asked for end the connection."""
        if self._response is None or self._parser is None:
            self.drop()
            return
        response = self._response
        try:
            self._parser.feed_data(data)
            if response.inflate is not None:
                response.unpack(self._blocks)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            cause = error.__context__
            told = cause if isinstance(cause, BrokenError) else BrokenError(str(error) or "no HTTP")
            self._fail(told)
        # Once for all that came at once, however many parts the parser cut it into.
        response.size += len(data)
        if response.size > HIGH_BYTES and self._response is response:
            self._rest()
        response.tell()

    def pause_writing(self) -> None:
        """Note that what was written is not out yet."""
        self._is_stuck = True

    def resume_writing(self) -> None:
        """Note that there is room again."""
        self._is_stuck = False
        if self._response is not None:
            self._response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: whole where its length was the connection's, else cut."""
        self._transport = self._parser = None
        response, self._response = self._response, None
        if response is not None:
            if response.status and not self._has_length and exc is None:
                response.finish(self._blocks)
            elif response.status or self._head_bytes:
                response.fail(BrokenError("closed in the middle of a response"))
            else:
                response.fail(DroppedError("closed before a response"))
            response.tell()
        self._on_lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start with empty hands."""
        if self._response is None:
            raise BrokenError("a second response")
        self._head_bytes, self._coding = 1, b""
        self._has_length = False
        self._response.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take over a header."""
        self._head_bytes += len(name) + len(value) + 4
        if self._response is None or self._head_bytes > MAX_HEAD_BYTES:
            raise BrokenError(f"headers of more than {MAX_HEAD_BYTES} bytes")
        name = name.lower()
        self._response.headers.append((name, value))
        if name == b"content-encoding":
            self._coding = value.strip().lower()
        elif name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Tell that a response has begun."""
        assert self._parser is not None
        assert self._response is not None
        status = self._parser.get_status_code()
        self._is_interim = 100 <= status < 200
        if self._is_interim:
            return
        self._has_length |= status in _NO_BODY
        self._is_kept = self._has_length and self._parser.should_keep_alive()
        self._response.read_as(self._coding)
        self._response.status = status

    def on_message_complete(self) -> None:
        """Let the response go, and the connection too."""
        if self._is_interim or self._response is None:
            return
        response = self._response
        response.finish(self._blocks)
        self._response = None
        self._blocks.clear()
        self.go_on()
        self._head_bytes = 0
        if self._is_kept and self._is_sent and self.is_open:
            self._on_free(self)
        else:
            self.drop()

    def _fail(self, error: BrokenError) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.fail(error)
        self.drop()
