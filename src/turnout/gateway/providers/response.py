"""This module is one response of an upstream as it arrives: for who waits for it, or handed on at once.

Reading stops while nobody takes what has arrived.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, final

from turnout.gateway.providers.base import TakeIn, Wait

if TYPE_CHECKING:
    from turnout.gateway.providers.connection import Connection

MOST_WHOLE_BYTES = 128_000_000
"""Bytes of a whole answer that are held; a longer one is cut."""
HIGH_BYTES = 2**17
"""Bytes of a response that wait to be taken, from which on the connection is not read."""

_CODINGS = {b"gzip": 47, b"x-gzip": 47, b"deflate": 47}
"""Window of zlib by content coding: 47 finds out whether a gzip or a zlib header comes."""


class ClientError(Exception):
    """A request got no whole response."""


@final
class DroppedError(ClientError):
    """The connection was closed before any byte of a response came."""


@final
class BrokenError(ClientError):
    """What came is no response, or not all of one."""


@final
class Response:
    """One response as it arrives.

    Parameters
    ----------
    connection:
        Where it comes from; it is let go when the response is whole.
    loop:
        The event loop of who waits.
    blocks:
        What the connection adds to as it arrives.
    """

    __slots__ = (
        "blocks",
        "_connection",
        "_error",
        "_held_up",
        "inflate",
        "_is_whole",
        "_loop",
        "size",
        "_take_in",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, blocks: list[bytes]) -> None:
        self._connection: Connection | None = connection
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self.blocks = blocks
        """What has arrived and was not taken; the connection adds to it until the body is whole."""
        self.size = 0
        """Bytes of them, and of what stood around them."""
        self._error: Exception | None = None
        self._is_whole = False
        self.inflate: zlib._Decompress | None = None
        """What undoes the content coding; None where there is none."""
        self._take_in: TakeIn | None = None
        self._held_up: Wait | None = None
        self.status = 0
        """0 until the headers are there."""
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case."""

    @property
    def content_type(self) -> bytes:
        """The media type in lower case, without its parameters; empty where none is given."""
        for name, value in self.headers:
            if name == b"content-type":
                return value.partition(b";")[0].strip().lower()
        return b""

    @property
    def has_begun(self) -> bool:
        """Whether the headers are there, or will never be."""
        return self.status != 0 or self._error is not None

    async def head(self) -> None:
        """Wait for the headers; raises `ClientError`."""
        while self.status == 0:
            if self._error is not None:
                raise self._error
            await self.changed()

    async def read(self) -> bytes:
        """Return the whole body; raises `BrokenError` where it does not come to its end."""
        found: list[bytes] = []
        num_bytes = 0
        while not self._is_whole:
            if self._error is not None:
                raise self._error
            if self.size > HIGH_BYTES:
                found.append(self._take())
                num_bytes += len(found[-1])
                if num_bytes > MOST_WHOLE_BYTES:
                    raise BrokenError(f"a body of more than {MOST_WHOLE_BYTES} bytes")
            else:
                await self.changed()
        found.append(self._take())
        return found[0] if len(found) == 1 else b"".join(found)

    async def read_some(self) -> bytes:
        """Return what has arrived, at least one byte, or nothing at the end; raises `BrokenError`."""
        while not self.blocks:
            if self._is_whole:
                return b""
            if self._error is not None:
                raise self._error
            await self.changed()
        return self._take()

    def ready(self) -> bytes:
        """Return what has arrived already; nothing where one has to wait, and at the end."""
        return self._take() if self.blocks else b""

    async def hand_on(self, take_in: TakeIn) -> Wait | None:
        """Have each block taken where it arrives, by a call in place of a turn of the event loop.

        Return None at the end, and before it what `take_in` would have waited for: then nothing is handed
        on any more, and what arrives is kept. Raises `BrokenError`, and what `take_in` raises.
        """
        self._take_in = take_in
        try:
            self.tell()
            while self._held_up is None:
                if self._error is not None:
                    raise self._error
                if self._is_whole:
                    return None
                await self.changed()
            return self._held_up
        finally:
            self._take_in = self._held_up = None

    def close(self) -> None:
        """Give the response up; an upstream that is still sending sees its connection closed."""
        if self._connection is not None:
            self._connection.drop()

    async def changed(self) -> None:
        """Wait until anything has happened."""
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        blocks, self.size = self.blocks, 0
        block = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        if self._connection is not None:
            self._connection.go_on()
        return block

    def tell(self) -> None:
        """Hand on what has arrived where somebody takes it at once; else wake whoever waits for it."""
        if self._take_in is not None and self.blocks:
            try:
                self._held_up = self._take_in(self._take())
            except Exception as error:  # noqa: BLE001 (raised again where the response is read)
                self._error = error
            if self._held_up is None and self._error is None and not self._is_whole:
                return
            self._take_in = None
        elif self._take_in is not None and self._error is None and not self._is_whole:
            return
        self.wake()

    def wake(self) -> None:
        """Wake whoever waits for anything to happen."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def read_as(self, coding: bytes) -> None:
        """Undo a content coding; raises `BrokenError` for one that is not known."""
        if coding in (b"", b"identity"):
            return
        if coding not in _CODINGS:
            raise BrokenError(f"content-encoding {coding[:20].decode('latin-1')}")
        self.inflate, self.blocks = zlib.decompressobj(_CODINGS[coding]), []

    def unpack(self, blocks: list[bytes]) -> None:
        """Undo the coding of what has arrived; raises `zlib.error`."""
        assert self.inflate is not None
        taken = blocks[:]
        blocks.clear()
        for block in taken:
            if part := self.inflate.decompress(block):
                self.blocks.append(part)
                self.size += len(part)

    def finish(self, blocks: list[bytes]) -> None:
        """Note that the body is whole, with the last of what has arrived; raises `zlib.error`."""
        if self.inflate is None:
            self.blocks = blocks[:]
        else:
            self.unpack(blocks)
        self._connection, self._is_whole = None, True
        if self.inflate is not None:
            if rest := self.inflate.flush():
                self.blocks.append(rest)
            if not self.inflate.eof:
                self._is_whole, self._error = False, BrokenError("a compressed body that is cut")

    def fail(self, error: ClientError) -> None:
        """Note that no more will come."""
        self._connection = None
        if not self._is_whole and self._error is None:
            self._error = error
