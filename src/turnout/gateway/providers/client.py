"""This module sends requests to upstreams over connections that it keeps.

HTTP/1.1 alone. A connection that is idle is kept for `KEEP_ALIVE_S`; the one that was used last is
taken first, so that a quiet gateway soon holds few.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import final
from urllib.parse import urlsplit

from turnout.gateway.providers.connection import Connection
from turnout.gateway.providers.reach import Address, addresses_of, open_socket
from turnout.gateway.providers.response import ClientError, DroppedError, Response

KEEP_ALIVE_S = 15.0
"""Seconds an idle connection is kept; servers close theirs after 5 to 75, and a closed one costs a retry."""

_LARGE_BYTES = 2**19
_MAX_HEADS = 256
_ADDRESSES_S = 300.0
_TURNS = 100
"""Turns of the loop in which connections that are dropped say so."""
_BAD = re.compile(r"[\r\n\0]")
_PORTS = {"http": 80, "https": 443}


@final
class UnreachableError(ClientError):
    """There is no connection to be had."""


@final
class ConnectTimeoutError(ClientError):
    """No connection was there in time."""


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL points to."""

    host: str
    port: int
    is_tls: bool
    target: str
    """Path and query, as the request line has them."""
    headers: Mapping[str, str]
    """What every request there says, unless it says it otherwise."""


@lru_cache(maxsize=1024)
def place_of(url: str) -> Place:
    """Cut a URL; raises `ValueError` for one that is none."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or _BAD.search(url):
        raise ValueError(f"no URL that one can post to: {url!r}")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        shown += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    own = {"host": shown, "accept": "*/*", "user-agent": "turnout"}
    return Place(host, port, parts.scheme == "https", path, own)


@final
class Client:
    """Connections to any number of hosts, as many as there are requests at once.

    Parameters
    ----------
    connect_s:
        Longest wait for a connection.
    """

    def __init__(self, *, connect_s: float) -> None:
        self.connect_s = connect_s
        self._idle: dict[tuple[str, int, bool], dict[Connection, None]] = {}
        self._all: set[Connection] = set()
        self._addresses: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._heads: dict[str, tuple[str, Mapping[str, str], bytes]] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request and return its response once the headers are there; raises `ClientError`.

        Where a kept connection was closed under us before any byte came back, the request is sent once
        more. On a new connection that would be a second call, on which others decide, and account for it.
        """
        place = place_of(url)
        head = b"%bcontent-length: %d\r\n\r\n" % (self._head(method, url, place, headers), len(body))
        kept = self._take(place)
        if kept is not None:
            try:
                return await self._send(kept, head, body)
            except DroppedError:
                pass
        return await self._send(await self._connect(place), head, body)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._idle.clear()
        for connection in tuple(self._all):
            connection.drop()
        for _ in range(_TURNS):
            if not self._all:
                break
            await asyncio.sleep(0)

    def _head(self, method: str, url: str, place: Place, headers: Mapping[str, str]) -> bytes:
        """Return the head of a request up to its length; written once for one mapping of headers."""
        known = self._heads.get(url)
        if known is not None and known[0] == method and known[1] is headers:
            return known[2]
        head = _head(method, place, headers)
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[url] = method, headers, head
        return head

    async def _send(self, connection: Connection, head: bytes, body: bytes) -> Response:
        try:
            if len(body) < _LARGE_BYTES:
                response = connection.send(head, body)
            else:
                # In one go a large body would hold up everybody else.
                response = await connection.send_in_pieces(head, body)
            await response.head()
        except BaseException:
            connection.drop()
            raise
        return response

    def _take(self, place: Place) -> Connection | None:
        idle = self._idle.get((place.host, place.port, place.is_tls))
        while idle:
            connection, _ = idle.popitem()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, place: Place) -> Connection:
        loop = asyncio.get_running_loop()
        key = place.host, place.port, place.is_tls
        idle = self._idle.setdefault(key, {})

        def free(connection: Connection) -> None:
            connection.idle_since_s = loop.time()
            idle[connection] = None
            if self._sweep is None:
                self._sweep = loop.call_later(KEEP_ALIVE_S, self._close_idle)

        def lost(connection: Connection) -> None:
            self._all.discard(connection)
            idle.pop(connection, None)

        try:
            async with asyncio.timeout(self.connect_s):
                sock = await open_socket(await self._find(place))
                try:
                    _, connection = await loop.create_connection(
                        lambda: Connection(free, lost),
                        sock=sock,
                        ssl=await self._context() if place.is_tls else None,
                        server_hostname=place.host if place.is_tls else None,
                    )
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError as error:
            raise ConnectTimeoutError("no connection in time") from error
        except OSError as error:
            self._addresses.pop((place.host, place.port), None)
            raise UnreachableError(_words(error)) from error
        self._all.add(connection)
        return connection

    async def _find(self, place: Place) -> list[Address]:
        """Return the addresses of a host, which are remembered for a while."""
        key, now_s = (place.host, place.port), asyncio.get_running_loop().time()
        known = self._addresses.get(key)
        if known is None or known[0] < now_s:
            known = now_s + _ADDRESSES_S, await addresses_of(*key)
            self._addresses[key] = known
        return known[1]

    async def _context(self) -> ssl.SSLContext:
        """Return the settings of TLS; reading the certificates takes a while and is done beside the loop."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        old_s = loop.time() - KEEP_ALIVE_S
        for idle in self._idle.values():
            for connection in [one for one in idle if one.idle_since_s <= old_s]:
                del idle[connection]
                connection.drop()
        first_s = min((one.idle_since_s for idle in self._idle.values() for one in idle), default=None)
        self._sweep = None if first_s is None else loop.call_at(first_s + KEEP_ALIVE_S, self._close_idle)


def _words(error: OSError) -> str:
    """Return what the system says, in the same words whichever loop runs."""
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error.strerror or error)
    return os.strerror(error.errno)


def _head(method: str, place: Place, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request up to its length; names are in lower case.

    Raises `ValueError` for one that is none.
    """
    whole = {**place.headers, **headers}
    whole.pop("content-length", None)
    line = f"{method} {place.target} HTTP/1.1\r\n"
    told = line + "".join([f"{name}: {value}\r\n" for name, value in whole.items()])
    num_lines = len(whole) + 1
    if told.count("\n") != num_lines or told.count("\r") != num_lines or "\0" in told:
        raise ValueError("a header with a line break")
    return told.encode("latin-1", "replace")
