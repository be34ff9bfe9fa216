"""The scanner reads the same out of a stream wherever the network cuts it."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from tests.gateway.upstream import events
from turnout.gateway.stream import MAX_HELD_BYTES, EventScanner, event_data

PLAIN = b"".join(events("m", wants_usage=False))
WITH_USAGE = b"".join(events("m", wants_usage=True))
# What remains of a stream with usage when only the chunk that carries it is taken out.
STRIPPED = b"".join(e for e in events("m", wants_usage=True) if b'"choices": []' not in e)


def feed(data: bytes, sizes: list[int], *, strip_usage: bool = True) -> tuple[bytes, EventScanner]:
    scanner, out, at, turn = EventScanner(strip_usage=strip_usage), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out.append(scanner.feed(data[at : at + size]))
        at, turn = at + size, turn + 1
    return b"".join(out), scanner


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@hypothesis.given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8))
@hypothesis.settings(max_examples=60)
def test_every_cut_gives_the_same_bytes_and_the_same_usage(newline: bytes, sizes: list[int]) -> None:
    out, scanner = feed(WITH_USAGE.replace(b"\n", newline), sizes)
    assert out == STRIPPED.replace(b"\n", newline)
    assert scanner.usage is not None
    assert (scanner.usage.prompt_tokens, scanner.usage.completion_tokens) == (11, 40)
    assert scanner.is_done
    assert scanner.is_complete
    assert scanner.num_events == len(list(events("m", wants_usage=True)))


@hypothesis.given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8))
@hypothesis.settings(max_examples=30)
def test_without_stripping_every_byte_passes(sizes: list[int]) -> None:
    assert feed(WITH_USAGE, sizes, strip_usage=False)[0] == WITH_USAGE
    assert feed(PLAIN, sizes)[0] == PLAIN


def test_usage_on_a_chunk_with_text_is_read_and_kept() -> None:
    data = (
        b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    )
    out, scanner = feed(data, [7])
    assert out == data
    assert scanner.usage is not None


def test_words_about_usage_and_done_in_the_text_change_nothing() -> None:
    text = r"{\"usage\":{\"prompt_tokens\":1},\"error\":{}} data: [DONE]"
    data = b'data: {"choices":[{"delta":{"content":"' + text.encode() + b'"}}]}\n\n'
    out, scanner = feed(data, [11])
    assert out == data
    assert (scanner.usage, scanner.is_done, scanner.has_error, scanner.is_complete) == (
        None,
        False,
        False,
        False,
    )


def test_a_stream_that_stops_early_is_not_complete() -> None:
    out, scanner = feed(PLAIN[: len(PLAIN) // 2], [100])
    assert not scanner.is_complete
    assert PLAIN.startswith(out)
    assert out.endswith(b"\n\n"), "half an event is not forwarded"


def test_a_finish_reason_or_an_error_completes_a_stream() -> None:
    assert feed(PLAIN.removesuffix(b"data: [DONE]\n\n"), [64])[1].is_complete
    scanner = feed(b'data: {"error": {"message": "no"}}\n\n', [9])[1]
    assert scanner.has_error
    assert scanner.is_complete
    assert not feed(b'data: {"error": null, "choices": []}\n\n', [9])[1].has_error


def test_two_marks_in_one_event_are_one_event() -> None:
    data = b'data: {"choices":[],"error":null,"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    out, scanner = feed(data + PLAIN, [1000])
    assert out == PLAIN
    assert scanner.usage is not None
    assert not scanner.has_error


def test_comments_pass_and_garbage_passes() -> None:
    data = b': ping\n\ndata: {"usage": {broken\n\n: "error"\n\n'
    out, scanner = feed(data, [5])
    assert out == data
    assert scanner.usage is None


def test_an_event_without_end_is_not_held_for_ever() -> None:
    scanner = EventScanner(strip_usage=True)
    assert scanner.feed(b"x" * MAX_HELD_BYTES) == b""
    assert len(scanner.feed(b"y")) == MAX_HELD_BYTES + 1


def test_data_lines_are_joined() -> None:
    assert event_data(b"event: x\ndata: a\ndata:b\n\n") == b"a\nb"


@pytest.mark.parametrize(
    ("event", "is_bad"),
    [
        (b"data: {not json}", True),
        (b"data: oops", True),
        (b'data: {"usage": {"prompt_tokens": 1}', True),
        (b": keep-alive", False),
        (b"event: ping", False),
        (b'data: { "choices": [] }', False),
        (b'data: {\ndata: "choices": []}', False),
        (b'data:{"choices":[{"delta":{"content":"data: {not json}"}}]}', False),
    ],
)
def test_data_that_is_no_chunk_is_noticed_and_passed_on(event: bytes, is_bad: bool) -> None:
    data = PLAIN[:500] + PLAIN[500:].replace(b"\n\n", b"\n\n" + event + b"\n\n", 1)
    for sizes in ([1], [7], [len(data)]):
        out, scanner = feed(data, sizes)
        assert out == data
        assert scanner.has_bad_event is is_bad
        assert scanner.is_done


FRAMES = [
    b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "%b"}, "logprobs": null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}],"obfuscation":"p}]"}\n\n',
]
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(['"', '\\"', '\\\\"', '"usage":{"prompt_tokens":1}', "[DONE]", '"error"', "\n\n", "}]}"]),
)
ODD_ONES = [
    b": ping\n\n",
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b'data: {"error":{"message":"no"}}\n\n',
    b"data: {oops\n\n",
    FRAMES[0] % b"cut\n\nin two",
    b'data: {"choices":[{"delta":{"content":"\\"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


@hypothesis.given(
    texts=st.lists(st.tuples(TEXTS, st.integers(0, 3)), max_size=30),
    odd=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ODD_ONES)), max_size=3),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8),
)
@hypothesis.settings(max_examples=200)
def test_events_that_differ_by_their_text_are_read_as_any_others(
    texts: list[tuple[str, int]], odd: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    events = [FRAMES[frame] % msgspec.json.encode(text)[1:-1] for text, frame in texts]
    for place, event in odd:
        events.insert(min(place, len(events)), event)
    data, blocks = b"".join(events), list[bytes]()
    while (at := sum(map(len, blocks))) < len(data):
        blocks.append(data[at : at + sizes[len(blocks) % len(sizes)]])
    for parts in (blocks, events):  # cut anywhere, and as most upstreams write them
        quick, slow = EventScanner(strip_usage=True), EventScanner(strip_usage=True)
        slow._num_looks = 1_000  # looks at every block as a whole
        for part in parts:
            assert quick.feed(part) == slow.feed(part)
        names = ("num_events", "is_done", "is_finished", "has_error", "has_bad_event", "is_complete")
        assert [getattr(quick, name) for name in names] == [getattr(slow, name) for name in names]
        assert quick.usage == slow.usage


def test_events_in_a_frame_are_never_looked_at_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    scan = EventScanner._scan_all

    def watched(scanner: EventScanner, whole: bytes) -> bytes:
        looked.append(whole)
        return scan(scanner, whole)

    monkeypatch.setattr(EventScanner, "_scan_all", watched)
    for frame in FRAMES:
        looked.clear()
        scanner = EventScanner(strip_usage=True)
        for number in range(100):
            scanner.feed(frame % (b"word%d " % number) * (1 + number % 3))
        assert not looked
        assert scanner.num_events == 199
