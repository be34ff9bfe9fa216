"""This module reads a request's body up to a limit, as it is: what is packed has no limit one could see."""

from __future__ import annotations

from turnout.core.errors import sentence
from turnout.gateway.disconnect import ClientGoneError, Receive, Scope
from turnout.gateway.errors import ApiError, body_too_large


async def read_body(scope: Scope, receive: Receive, limit_mb: float) -> bytes:
    """Return the whole body; raises `ApiError` (413) beyond the limit, (415) for one that is packed.

    Raises `ClientGoneError` when cut. As much again is read and thrown away first, because a client that is
    cut off while it sends reports a broken connection and not the answer.
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
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise _packed(value)
    if size > limit_bytes:
        raise body_too_large(limit_mb, size)
    return parts[0] if len(parts) == 1 else b"".join(parts)


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
