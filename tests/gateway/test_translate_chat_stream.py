"""A stream of chat chunks says the same as events of Messages, wherever its bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.chat_told import CALLS, CHUNKS, chunk, completion, piece
from tests.gateway.told import sse
from turnout.gateway.protocols.messages_scan import MessagesScanner
from turnout.gateway.providers.base import Reply
from turnout.gateway.translate.chat_answer_as_messages import messages_reply
from turnout.gateway.translate.chat_stream_as_messages import ChatAsMessages
from turnout.gateway.translate.events import BadEventError
from turnout.gateway.translate.messages_stream_as_chat import MessagesAsChat

STREAM = sse(*CHUNKS)


def run(data: bytes, cuts: list[int]) -> bytes:
    translator = ChatAsMessages()
    told = [translator.feed(data[low:high]) for low, high in pairwise([0, *sorted(cuts), len(data)])]
    return b"".join([*told, translator.end()])


def read(told: bytes) -> list[dict[str, Any]]:
    """Return the events, after a look at their names."""
    found = []
    for part in told.split(b"\n\n")[:-1]:
        name, data = part.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def joined(told: bytes) -> list[dict[str, Any]]:
    """Put the blocks together, holding the stream to the order of the API."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in read(told):
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "pieces": ""})
            is_open = True
        elif event["type"] == "content_block_delta":
            assert is_open
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            blocks[-1]["pieces"] += delta[
                {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"], "partial_json")
            ]
        elif event["type"] == "content_block_stop":
            is_open = False
    assert not is_open
    return blocks


def test_the_stream_and_the_whole_answer_agree() -> None:
    said = {"content": "It is 391.", "reasoning_content": "Let me see.", "tool_calls": CALLS}
    body = json.dumps(completion(said, "tool_calls")).encode()
    whole = json.loads(messages_reply(Reply(status=200, body=body), "x").body)
    blocks = joined(run(STREAM, []))
    assert [block["type"] for block in blocks] == [block["type"] for block in whole["content"]]
    assert blocks[0]["pieces"] == whole["content"][0]["thinking"]
    assert blocks[1]["pieces"] == whole["content"][1]["text"]
    assert [json.loads(block["pieces"]) for block in blocks[2:]] == [b["input"] for b in whole["content"][2:]]
    delta, stop = read(run(STREAM, []))[-2:]
    assert (delta["usage"], delta["delta"]["stop_reason"]) == (whole["usage"], whole["stop_reason"])
    assert stop == {"type": "message_stop"}


def test_every_single_cut_gives_the_same_bytes() -> None:
    expected = run(STREAM, [])
    for place in range(len(STREAM)):
        assert run(STREAM, [place]) == expected


@given(st.lists(st.integers(0, len(STREAM)), max_size=40), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))
def test_many_cuts_and_every_line_end_give_the_same(cuts: list[int], end: bytes) -> None:
    assert run(STREAM.replace(b"\n\n", end), cuts) == run(STREAM, [])


@given(st.integers(0, len(STREAM) - 1), st.lists(st.integers(0, len(STREAM)), max_size=5))
def test_a_cut_stream_is_never_stopped(length: int, cuts: list[int]) -> None:
    told = run(STREAM[:length], [cut for cut in cuts if cut <= length])
    scanner = MessagesScanner()
    assert scanner.feed(told) == told
    is_finished = b'"finish_reason": "tool_calls"}]}\n\n' in STREAM[:length]
    assert (b"message_stop" in told) is is_finished
    assert scanner.is_complete is is_finished


@given(st.binary(max_size=60), st.integers(0, 10))
def test_garbage_is_an_error_or_nothing_and_never_a_stop(garbage: bytes, after: int) -> None:
    data = sse(*CHUNKS[:after], done=False) + b"data: " + garbage + b"\n\n"
    try:
        told = run(data, [])
    except BadEventError:
        return
    assert (b"message_stop" in told) is (b'"finish_reason": "tool' in data or b"[DONE]" in garbage)


def test_both_ways_and_back_is_the_same_answer() -> None:
    back = MessagesAsChat(asks_usage=True)
    chunks = [json.loads(part[6:]) for part in back.feed(run(STREAM, [])).split(b"\n\n")[:-2]]
    deltas = [choice["delta"] for one in chunks for choice in one["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "It is 391."
    spelt = {0: "", 1: ""}
    for call in [call for delta in deltas for call in delta.get("tool_calls", [])]:
        spelt[call["index"]] += call["function"]["arguments"]
    assert [json.loads(text) for text in spelt.values()] == [{"a": 17}, {}]
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (150, 9)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 100


def test_calls_that_all_say_index_0_are_told_apart_by_their_ids() -> None:
    calls = [piece(0, "{}", id="call_1"), piece(0, '{"b": 1}', id="call_2"), chunk({}, "tool_calls")]
    blocks = joined(run(sse(*calls), []))
    assert [(block["id"], block["pieces"]) for block in blocks] == [("call_1", "{}"), ("call_2", '{"b": 1}')]


@pytest.mark.parametrize(
    "data",
    [sse(), sse(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})), sse({"choices": 5})],
)
def test_a_stream_that_is_no_chat_is_said_to_be_bad(data: bytes) -> None:
    with pytest.raises(BadEventError):
        run(data, [])
