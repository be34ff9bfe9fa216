"""This module reads a request's body, up to a limit."""

from __future__ import annotations

from turnout.gateway.disconnect import ClientGoneError, Receive
from turnout.gateway.errors import body_too_large


async def read_body(receive: Receive, limit_mb: float) -> bytes:
    """Return the whole body; raises `ApiError` (413) beyond the limit, `ClientGoneError` when cut.

    As much again is read and thrown away first, because a client that is cut off while it sends reports a
    broken connection and not the answer.
    """
    limit_bytes = int(limit_mb * 1e6)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size <= limit_bytes:
            parts.append(part)
        if not message.get("more_body", False) or size > 2 * limit_bytes:
            break
    if size > limit_bytes:
        raise body_too_large(limit_mb, size)
    return parts[0] if len(parts) == 1 else b"".join(parts)
