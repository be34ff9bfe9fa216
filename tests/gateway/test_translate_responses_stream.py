"""A stream of chat chunks says the same as events of Responses, wherever its bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.gateway.chat_told import CALLS, CHUNKS, chunk, completion, piece
from tests.gateway.told import sse
from turnout.gateway.protocols.responses_scan import ResponsesScanner
from turnout.gateway.protocols.responses_wire import parse_responses
from turnout.gateway.providers.base import Reply
from turnout.gateway.translate.chat_answer_as_responses import responses_reply
from turnout.gateway.translate.chat_stream_as_responses import ChatAsResponses
from turnout.gateway.translate.events import BadEventError

STREAM = sse(*CHUNKS)
ASKED = parse_responses(
    b'{"model": "m", "input": "hi", "temperature": 0.50, "metadata": {"a": "b"}, "tools": [],'
    b' "instructions": "be brief", "max_output_tokens": null}'
)
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def run(data: bytes, cuts: list[int]) -> bytes:
    translator = ChatAsResponses(request=ASKED)
    told = [translator.feed(data[low:high]) for low, high in pairwise([0, *sorted(cuts), len(data)])]
    return b"".join([*told, translator.end()])


def read(told: bytes) -> list[dict[str, Any]]:
    """Return the events, after a look at their names and numbers, and what OpenAI's types say of them."""
    found: list[dict[str, Any]] = []
    for part in told.split(b"\n\n")[:-1]:
        name, data = part.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == len(found)
        _EVENT.validate_python(event)
        found.append(event)
    return found


def joined(told: bytes) -> list[dict[str, Any]]:
    """Put the output together from its pieces, holding the stream to the order of the API."""
    output: list[dict[str, Any]] = []
    is_open = False
    for event in read(told):
        kind = event["type"]
        if kind == "response.output_item.added":
            assert not is_open
            assert event["output_index"] == len(output)
            output.append({**event["item"], "pieces": ""})
            is_open = True
        elif kind.endswith(".delta"):
            assert is_open
            assert (event["item_id"], event["output_index"]) == (output[-1]["id"], len(output) - 1)
            output[-1]["pieces"] += event["delta"]
        elif kind.endswith(".done") and "item_id" in event:
            assert event["item_id"] == output[-1]["id"]
            said = event.get("text", event.get("arguments", event.get("refusal")))
            assert said in (None, output[-1]["pieces"])
        elif kind == "response.output_item.done":
            is_open = False
            output[-1]["whole"] = event["item"]
    assert not is_open
    return output


def whole_of(said: dict[str, Any], finish: str, **more: Any) -> dict[str, Any]:
    body = json.dumps(completion(said, finish, **more)).encode()
    told = json.loads(responses_reply(Reply(status=200, body=body), ASKED, "x").body)
    Response.model_validate(told)
    return told


def test_the_stream_and_the_whole_answer_agree() -> None:
    said = {"content": "It is 391.", "reasoning_content": "Let me see.", "tool_calls": CALLS}
    whole = whole_of(said, "tool_calls")
    events = read(run(STREAM, []))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"] == whole
    assert [event["response"]["status"] for event in events[:2]] == ["in_progress", "in_progress"]
    output = joined(run(STREAM, []))
    assert [item["whole"] for item in output] == whole["output"]
    assert [item["pieces"] for item in output] == ["Let me see.", "It is 391.", '{"a": 17}', "{}"]
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert [item["type"] for item in whole["output"]] == kinds
    assert whole["usage"] == {
        "input_tokens": 150,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 159,
    }


def test_a_response_says_its_request_again_and_that_nobody_keeps_it() -> None:
    whole = whole_of({"content": "x"}, "stop")
    told = {name: whole[name] for name in ("temperature", "metadata", "instructions", "max_output_tokens")}
    assert told == {
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "instructions": "be brief",
        "max_output_tokens": None,
    }
    assert (whole["store"], whole["id"], whole["model"]) == (False, "resp_chatcmpl-1", "gpt-x")


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_why_it_ended(finish: str, status: str, reason: str | None) -> None:
    whole = whole_of({"content": "It is"}, finish)
    last = read(run(sse(chunk({"content": "It is"}), chunk({}, finish)), []))[-1]
    for told in (whole, last["response"]):
        assert told["status"] == told["output"][0]["status"] == status
        assert (told["incomplete_details"] or {}).get("reason") == reason
    assert last["type"] == f"response.{status}"


def test_refusals_custom_calls_chances_and_citations() -> None:
    chances = [{"token": "It", "logprob": -0.1, "bytes": [73, 116], "top_logprobs": []}]
    cited = {"start_index": 0, "end_index": 2, "title": "t", "url": "http://x"}
    note = {"type": "url_citation", "url_citation": cited}
    call = {"id": "call_9", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    said = {"content": "It", "annotations": [note], "tool_calls": [call]}
    whole = whole_of(said, "tool_calls", logprobs={"content": chances})
    part = whole["output"][0]["content"][0]
    assert part["logprobs"] == chances
    assert part["annotations"] == [{"type": "url_citation", **cited}]
    assert (whole["output"][1]["type"], whole["output"][1]["input"]) == ("custom_tool_call", "ls")
    text = chunk({"content": "It"})
    text["choices"][0]["logprobs"] = {"content": chances}
    begun = {"index": 0, "id": "call_9", "custom": {"name": "run", "input": ""}}
    more = {"index": 0, "custom": {"input": "ls"}}
    calls = [chunk({"tool_calls": [begun]}), chunk({"tool_calls": [more]}), chunk({}, "tool_calls")]
    told = read(run(sse(text, chunk({"annotations": [note]}), *calls), []))
    assert told[-1]["response"]["output"] == whole["output"]
    refused = whole_of({"content": None, "refusal": "No."}, "stop")
    told = read(run(sse(chunk({"refusal": "N"}), chunk({"refusal": "o."}), chunk({}, "stop")), []))
    assert told[-1]["response"]["output"] == refused["output"]
    assert refused["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    empty = read(run(sse(chunk({}, "stop")), []))[-1]["response"]["output"]
    assert empty == whole_of({"content": None}, "stop")["output"]


def test_every_single_cut_gives_the_same_bytes() -> None:
    expected = run(STREAM, [])
    for place in range(len(STREAM)):
        assert run(STREAM, [place]) == expected


@given(st.lists(st.integers(0, len(STREAM)), max_size=40), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))
def test_many_cuts_and_every_line_end_give_the_same(cuts: list[int], end: bytes) -> None:
    assert run(STREAM.replace(b"\n\n", end), cuts) == run(STREAM, [])


@given(st.integers(0, len(STREAM) - 1), st.lists(st.integers(0, len(STREAM)), max_size=5))
def test_a_cut_stream_is_never_completed(length: int, cuts: list[int]) -> None:
    told = run(STREAM[:length], [cut for cut in cuts if cut <= length])
    scanner = ResponsesScanner()
    assert scanner.feed(told) == told
    is_finished = b'"finish_reason": "tool_calls"}]}\n\n' in STREAM[:length]
    assert (b"response.completed" in told) is is_finished
    assert scanner.is_complete is is_finished


@given(st.binary(max_size=60), st.integers(0, 10))
def test_garbage_is_an_error_or_nothing_and_never_an_end(garbage: bytes, after: int) -> None:
    data = sse(*CHUNKS[:after], done=False) + b"data: " + garbage + b"\n\n"
    try:
        told = run(data, [])
    except BadEventError:
        return
    is_finished = b'"finish_reason": "tool' in data or b"[DONE]" in garbage
    assert (b"response.completed" in told) is is_finished


def test_an_error_in_the_stream_is_one_that_clients_raise() -> None:
    error = {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": "x"}}
    told = read(run(sse(chunk({"content": "It"}), error, done=False), []))
    assert (told[-1]["type"], told[-1]["message"], told[-1]["error"]) == (
        "error",
        "overloaded",
        error["error"],
    )
    scanner = ResponsesScanner()
    scanner.feed(run(sse(chunk({"content": "It"}), error, done=False), []))
    assert scanner.has_error


def test_calls_that_all_say_index_0_are_told_apart_by_their_ids() -> None:
    calls = [piece(0, "{}", id="call_1"), piece(0, '{"b": 1}', id="call_2"), chunk({}, "tool_calls")]
    output = joined(run(sse(*calls), []))
    assert [(item["call_id"], item["pieces"]) for item in output] == [
        ("call_1", "{}"),
        ("call_2", '{"b": 1}'),
    ]


@pytest.mark.parametrize(
    "data",
    [sse(), sse(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})), sse({"choices": 5})],
)
def test_a_stream_that_is_no_chat_is_said_to_be_bad(data: bytes) -> None:
    with pytest.raises(BadEventError):
        run(data, [])
