"""A stream of Messages says the same as chat chunks, wherever its bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.anthropic_upstream import TEXT, THOUGHT, TOOL_USE, event, events, message
from turnout.gateway.stream import EventScanner
from turnout.gateway.translate.events import BadEventError, EventCutter
from turnout.gateway.translate.messages_answer_as_chat import chat_completion
from turnout.gateway.translate.messages_stream_as_chat import MessagesAsChat

TOLD = message("claude", THOUGHT, TEXT, TOOL_USE, {**TOOL_USE, "id": "toolu_2", "input": {}}, stop="tool_use")
STREAM = b"".join(events(TOLD))


def run(data: bytes, cuts: list[int]) -> bytes:
    """Feed the bytes cut at these places."""
    translator = MessagesAsChat(asks_usage=False)
    places = [0, *sorted(cuts), len(data)]
    told = [translator.feed(data[low:high]) for low, high in pairwise(places)]
    return b"".join([*told, translator.end()])


def chunks(told: bytes) -> list[dict[str, Any]]:
    """Return the chunks without the time, which is not the stream's."""
    parts = [part.removeprefix(b"data: ") for part in told.split(b"\n\n") if part]
    return [{**json.loads(part), "created": 0} for part in parts if part != b"[DONE]"]


def joined(told: bytes) -> dict[str, Any]:
    """Put the deltas together, as a client does."""
    message: dict[str, Any] = {
        "content": "",
        "reasoning_content": "",
        "thinking_blocks": [],
        "tool_calls": [],
    }
    finish = None
    for chunk in chunks(told):
        for choice in chunk["choices"]:
            delta, finish = choice["delta"], choice["finish_reason"] or finish
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            message["thinking_blocks"] += delta.get("thinking_blocks", [])
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"])
                    message["tool_calls"].append({"id": call["id"], "arguments": "", **call["function"]})
                else:
                    message["tool_calls"][call["index"]]["arguments"] += call["function"]["arguments"]
    return {**message, "finish": finish}


def test_the_stream_and_the_whole_answer_agree() -> None:
    choice = json.loads(chat_completion(json.dumps(TOLD).encode()))["choices"][0]
    whole, told = choice["message"], joined(run(STREAM, []))
    for name in ("content", "reasoning_content", "thinking_blocks"):
        assert told[name] == whole[name]
    calls = [{"id": call["id"], **call["function"]} for call in whole["tool_calls"]]
    assert told["tool_calls"] == calls
    assert told["finish"] == choice["finish_reason"] == "tool_calls"


def test_every_single_cut_gives_the_same_bytes() -> None:
    expected = chunks(run(STREAM, []))
    for place in range(len(STREAM)):
        assert chunks(run(STREAM, [place])) == expected


@given(st.lists(st.integers(0, len(STREAM)), max_size=40), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_many_cuts_and_every_line_end_give_the_same(cuts: list[int], end: bytes) -> None:
    data = STREAM.replace(b"\n", end)
    assert chunks(run(data, cuts)) == chunks(run(STREAM, []))


def test_bytes_one_by_one_give_the_same() -> None:
    assert chunks(run(STREAM, list(range(len(STREAM))))) == chunks(run(STREAM, []))


@given(st.integers(0, len(STREAM) - 1))
def test_a_cut_stream_is_never_done(length: int) -> None:
    told = run(STREAM[:length], [])
    scanner = EventScanner(strip_usage=True)
    assert b"[DONE]" not in told
    scanner.feed(told)
    has_stopped = (
        b'"stop_reason": "tool_use"' in STREAM[:length]
        and STREAM[:length].count(b"\n\n") >= STREAM.count(b"\n\n") - 1
    )
    assert scanner.is_complete is has_stopped


@given(st.binary(max_size=60), st.integers(0, 30))
def test_garbage_is_an_error_or_nothing_and_never_an_end(garbage: bytes, after: int) -> None:
    data = b"".join(events(TOLD)[:after]) + b"data: " + garbage + b"\n\n"
    stopped = b"message_stop" in data
    try:
        told = run(data, [])
    except BadEventError:
        return
    assert (b"[DONE]" in told) is stopped


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_start", "index": 0},
        {"type": "message_delta"},
        {"type": "message_start", "message": {}},
        {"type": "error"},
    ],
)
def test_an_event_that_breaks_the_order_is_said_to_be_bad(bad: dict[str, Any]) -> None:
    with pytest.raises(BadEventError):
        run(b"".join(events(TOLD)[:1]) + event(bad), [])


def test_kinds_to_come_are_passed_over_and_nothing_comes_after_the_end() -> None:
    more = event({"type": "brand_new", "x": 1})
    assert chunks(run(more + STREAM + more, [])) == chunks(run(STREAM, []))
    assert chunks(run(STREAM + STREAM, [])) == chunks(run(STREAM, []))


def test_the_cutter_leaves_out_comments_and_joins_lines() -> None:
    cutter = EventCutter()
    assert cutter.feed(b": ping\n\ndata: a\ndata:b\n\nevent: x\n\ndata: c") == [b"a\nb"]
    assert cutter.feed(b"\r\n\r\n") == [b"c"]
