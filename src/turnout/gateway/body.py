"""This module reads a request's body up to a limit, as it is: what is packed has no limit one could see.

Bodies that are still coming in have a limit together, too: they have no place among the requests that are
served, and a client may send many of them slowly.
"""

from __future__ import annotations

import asyncio
from typing import final

from turnout.core.errors import sentence
from turnout.gateway.config import ServerSettings
from turnout.gateway.disconnect import ClientGoneError, Receive, Scope
from turnout.gateway.errors import ApiError, body_too_large
from turnout.gateway.quick_cycle import quick_cycle_of

_FREE_BYTES = 2**16
"""Of each body, what is not counted: as much is read before anybody asks for it."""


@final
class _Coming:
    """Bytes of the bodies that are coming in to this process."""

    num_bytes = 0


async def read_body(scope: Scope, receive: Receive, settings: ServerSettings) -> bytes:
    """Return the whole body; raises `ApiError` (408, 413) beyond the limits, (415) for one that is packed.

    Raises `ApiError` (503) where the bodies that are coming in are too much together, and `ClientGoneError`
    when cut. As much again is read and thrown away first, because a client that is
    cut off while it sends reports a broken connection and not the answer.
    """
    limit_bytes = int(settings.max_body_mb * 1e6)
    cycle = quick_cycle_of(receive)
    if cycle is not None and not cycle.more_body and not cycle.disconnected:
        # Nearly always: it came with the headers.
        body: bytes = (await receive())["body"]
        size = len(body)
    else:
        try:
            async with asyncio.timeout(settings.body_s):
                body, size = await _read(receive, limit_bytes, settings.max_bodies_mb)
        except TimeoutError:
            raise _too_slow(settings.body_s) from None
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise _packed(value)
    if size > limit_bytes:
        raise body_too_large(settings.max_body_mb, size)
    return body


async def _read(receive: Receive, limit_bytes: int, most_mb: float) -> tuple[bytes, int]:
    """Return what fits, and how much came."""
    parts: list[bytes] = []
    size = num_counted = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= limit_bytes:
                parts.append(part)
            if not message.get("more_body", False) or size > 2 * limit_bytes:
                return parts[0] if len(parts) == 1 else b"".join(parts), size
            more = min(size, limit_bytes) - _FREE_BYTES - num_counted
            if more > 0:
                if _Coming.num_bytes + more > most_mb * 1e6:
                    raise _too_many(most_mb)
                _Coming.num_bytes += more
                num_counted += more
    finally:
        _Coming.num_bytes -= num_counted


def _too_many(most_mb: float) -> ApiError:
    message = sentence(
        "the bodies of requests that are coming in are too much together",
        allowed=f"{most_mb:g} MB (server.max_bodies_mb)",
        do="ask again in a moment, or raise server.max_bodies_mb",
    )
    # What may still come of it would be taken for the next request.
    headers = [(b"retry-after", b"1"), (b"connection", b"close")]
    return ApiError(503, message, code="overloaded", kind="server_error", headers=headers)


def _too_slow(limit_s: float) -> ApiError:
    message = sentence(
        "the request body did not come to its end in time",
        allowed=f"{limit_s:g} s",
        do="send it faster, or raise server.body_s",
    )
    # What may still come of it would be taken for the next request.
    headers = [(b"connection", b"close")]
    return ApiError(408, message, code="body_timeout", kind="timeout_error", headers=headers)


def _packed(encoding: bytes) -> ApiError:
    message = sentence(
        "the request body is packed",
        allowed="a body as it is, without the header 'content-encoding'",
        got=encoding[:40].decode("latin-1"),
        do="send it unpacked",
    )
    # RFC 9110, 15.5.16: the header says which codings would have been taken.
    headers = [(b"accept-encoding", b"identity")]
    return ApiError(415, message, code="unsupported_content_encoding", headers=headers)
