"""What comes after a body is no header: a proxy that sets or strips headers has not looked at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.pool import make_deployment
from tests.gateway.test_floods import BODY, connected, read_all
from tests.gateway.test_keys import SECRET, hashed, make
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import KeySettings

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize("place", ["head", "trailer"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_key_after_the_body_lets_nobody_in(
    upstream: Upstream, tmp_path: Path, place: str, parts: int
) -> None:
    """Whether it comes in one packet or in two, and the connection goes on as before."""
    config = make(upstream, tmp_path, team=KeySettings(sha256=hashed()))
    key = f"authorization: Bearer {SECRET}\r\n".encode()
    in_head, in_trailer = (key, b"") if place == "head" else (b"", key)
    first = HEAD + in_head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(BODY), BODY)
    last = b"0\r\n%b\r\n" % in_trailer
    with running(config, deployment=make_deployment()) as ready, connected(ready.base_url) as client:
        for block in [first + last] if parts == 1 else [first, last]:
            client.sendall(block)
        answer = read_all(client)
    status = b"200" if place == "head" else b"401"
    assert answer.startswith(b"HTTP/1.1 %b" % status)
    assert len(upstream.seen) == (place == "head")


def test_the_next_request_has_its_own_headers(upstream: Upstream, tmp_path: Path) -> None:
    config = make(upstream, tmp_path, team=KeySettings(sha256=hashed()))
    key = f"authorization: Bearer {SECRET}\r\n".encode()
    chunked = (
        HEAD + key + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx-a: 1\r\n\r\n" % (len(BODY), BODY)
    )
    plain = HEAD + key + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    with running(config, deployment=make_deployment()) as ready, connected(ready.base_url) as client:
        for request in (chunked, plain, chunked):
            client.sendall(request)
            assert read_all(client).startswith(b"HTTP/1.1 200")
    assert len(upstream.seen) == 3
