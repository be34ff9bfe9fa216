"""What a stream said is counted alike, whether its events are parsed or known by what stands around them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.gateway.frame import Frame, frame_of
from turnout.gateway.heard import chars_of_events
from turnout.gateway.stream import EventScanner

HEAD, TAIL = (
    b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "',
    b'"}, "finish_reason": null}]}\n\n',
)
LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
TEXTS = st.lists(st.text(max_size=8), max_size=30)


def event(text: str) -> bytes:
    """Return an event whose text is masked where JSON asks for it."""
    return HEAD + json.dumps(text, ensure_ascii=False).encode()[1:-1] + TAIL


def stream_of(texts: list[str]) -> bytes:
    return b"".join(map(event, texts)) + LAST


@given(st.lists(st.text(max_size=8), min_size=1, max_size=30))
def test_a_frame_counts_what_parsing_does_or_nothing(texts: list[str]) -> None:
    frame, block = Frame(HEAD, TAIL), b"".join(map(event, texts))
    if frame.count(block):
        assert (frame.num_chars, frame.num_events) == (chars_of_events(block), len(texts))
    else:
        assert any(text.endswith("\\") for text in texts)
    assert chars_of_events(block) == sum(map(len, texts))


@given(TEXTS, st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_a_stream_is_counted_exactly_however_it_is_cut(texts: list[str], sizes: list[int]) -> None:
    scanner, data, at, turn = EventScanner(strip_usage=False), stream_of(texts), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        scanner.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert scanner.said_chars() == sum(map(len, texts))
    assert scanner.num_events == len(texts) + 2
    assert scanner.is_done


def padded(text: str, padding: str) -> bytes:
    """Return an event as OpenAI writes it where nobody asked for none of it."""
    told = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None}
    return b"data: %b\n\n" % json.dumps(told | {"obfuscation": padding}).encode()


@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=30),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
)
def test_a_padded_stream_is_counted_exactly_however_it_is_cut(
    said: list[tuple[str, str]], sizes: list[int]
) -> None:
    scanner, at, turn = EventScanner(strip_usage=True), 0, 0
    data = b"".join(padded(*one) for one in [("a", "b"), *said]) + LAST
    while at < len(data):
        size = sizes[turn % len(sizes)]
        scanner.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert scanner.said_chars() == 1 + sum(len(text) for text, _ in said)
    assert scanner.num_events == len(said) + 3


def test_a_padded_stream_is_counted_by_its_texts_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    scan = EventScanner._scan_all

    def watched(scanner: EventScanner, whole: bytes) -> bytes:
        looked.append(whole)
        return scan(scanner, whole)

    monkeypatch.setattr(EventScanner, "_scan_all", watched)
    scanner, texts = EventScanner(strip_usage=True), ["w" * (number % 13) for number in range(3000)]
    for number, text in enumerate(texts):
        block = padded(text, "p" * (7 * number % 20))
        assert scanner.feed(block) == block
    assert scanner.feed(padded("last", "") + LAST) == padded("last", "") + LAST
    assert scanner.said_chars() == sum(map(len, texts)) + 4
    assert looked == [LAST]


@pytest.mark.parametrize("padding", ['"', '\\"', "\n", '"},"usage":{"prompt_tokens":1}'])
def test_a_padding_is_no_place_to_say_anything(padding: str) -> None:
    scanner = EventScanner(strip_usage=True)
    for block in (padded("one", "x"), padded("two", padding), padded("six", "x") + padded("ten", padding)):
        assert scanner.feed(block) == block
    assert (scanner.said_chars(), scanner.num_events, scanner.usage) == (12, 4, None)
    scanner.feed(padded("a", "x").replace(b'"x"', b'"x", "error": {}'))
    assert scanner.has_error


@pytest.mark.parametrize(
    "wrong",
    [
        HEAD + b'a"b' + TAIL,
        HEAD + b"a\\" + TAIL,
        HEAD + b"a\\" + TAIL + event("b"),
        HEAD + b"a" + TAIL[:-2] + b"\n" + TAIL,
        HEAD + b"a\nb" + TAIL,
        HEAD + b"\xff" + TAIL,
        HEAD + b"\\x" + TAIL,
        HEAD + TAIL[1:],
        event("a") + LAST,
        b": a comment\n\n" + event("a"),
    ],
)
def test_what_differs_in_more_than_its_text_is_in_no_frame(wrong: bytes) -> None:
    frame = Frame(HEAD, TAIL)
    assert not frame.count(wrong)
    assert (frame.num_chars, frame.num_events) == (0, 0)


@pytest.mark.parametrize(
    "more",
    [
        b'{"content": "a", "reasoning": "b"}',
        b'{"content": "a", "tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}',
        b'{"role": "assistant"}',
        b'{"content": ""',
    ],
)
def test_an_event_that_says_more_than_a_text_is_no_frame(more: bytes) -> None:
    assert frame_of(b'data: {"choices": [{"delta": ' + more + b"}]}\n\n") is None


def test_thoughts_and_arguments_are_in_frames_too() -> None:
    call = b'{"tool_calls": [{"index": 0, "function": {"arguments": "abc"}}]}'
    for delta in (b'{"content": null, "reasoning_content": "abc"}', call):
        one = b'data: {"choices": [{"delta": ' + delta + b"}]}\n\n"
        frame, block = frame_of(one), one + one.replace(b"abc", b'{\\"a\\":')
        assert frame is not None
        assert frame.count(block)
        assert frame.num_chars == 8 == chars_of_events(block)
