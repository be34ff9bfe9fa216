"""What a stream said is counted alike, whether its events are parsed or known by what stands around them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from turnout.gateway.heard import chars_of_events
from turnout.gateway.stream import EventScanner

HEAD, TAIL = (
    b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "',
    b'"}, "finish_reason": null}]}',
)
LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
TEXTS = st.lists(st.text(max_size=8), max_size=30)


def stream_of(texts: list[str]) -> bytes:
    """Return events whose texts are masked where JSON asks for it."""
    events = [HEAD + json.dumps(text, ensure_ascii=False).encode()[1:-1] + TAIL + b"\n\n" for text in texts]
    return b"".join(events) + LAST


@given(TEXTS)
def test_a_frame_changes_no_count(texts: list[str]) -> None:
    block = stream_of(texts)
    assert chars_of_events(block, (HEAD, TAIL)) == chars_of_events(block) == sum(map(len, texts))


@given(TEXTS)
def test_a_stream_that_came_as_one_block_is_counted_exactly(texts: list[str]) -> None:
    scanner = EventScanner(strip_usage=False)
    scanner.feed(stream_of(texts))
    assert scanner.said_chars() == sum(map(len, texts))
