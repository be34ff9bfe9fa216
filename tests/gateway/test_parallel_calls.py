"""Calls of tools in every order and form that servers of chat write: nothing of them is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway import test_translate_chat_stream as messages
from tests.gateway import test_translate_responses_stream as responses
from tests.gateway.chat_told import CALLS, chunk, completion, piece
from tests.gateway.gemini_told import CALL, THOUGHT, answer, stream_of
from tests.gateway.told import sse
from turnout.gateway.providers.base import Reply
from turnout.gateway.providers.gemini import GeminiDialect
from turnout.gateway.settings_providers import GeminiSettings
from turnout.gateway.translate.chat_answer_as_messages import messages_reply
from turnout.gateway.translate.events import BadEventError
from turnout.gateway.translate.gemini_answer_as_chat import GeminiAsChat, NotAnAnswerError, chat_of_gemini
from turnout.gateway.translate.messages_request_as_chat import chat_request
from turnout.gateway.wire import parse_members

SPELT = ['{"a": 1, "b": {"c": "}"}}', "{}", '{"d": [2]}']
END = chunk({}, "tool_calls")


def calls_in(chunks: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    """Return ids and texts of the calls, as Messages and as Responses tell them."""
    data = sse(*chunks)
    blocks = [block for block in messages.joined(messages.run(data, [])) if block["type"] == "tool_use"]
    items = [item for item in responses.joined(responses.run(data, [])) if item["type"] == "function_call"]
    for item in items:
        assert item["whole"]["arguments"] == item["pieces"]
    return [
        [(block["id"], block["pieces"]) for block in blocks],
        [(item["call_id"], item["pieces"]) for item in items],
    ]


@given(st.data())
def test_pieces_of_several_calls_may_come_in_any_order(data: st.DataObject) -> None:
    left = {}
    for number, text in enumerate(SPELT):
        size = data.draw(st.integers(1, 9))
        left[number] = [text[at : at + size] for at in range(0, len(text), size)]
    chunks = [piece(number, "", id=f"call_{number}") for number in left]
    while left:
        number = data.draw(st.sampled_from(sorted(left)))
        chunks.append(piece(number, left[number].pop(0)))
        if not left[number]:
            del left[number]
    expected = [(f"call_{number}", text) for number, text in enumerate(SPELT)]
    assert calls_in([*chunks, END]) == [expected, expected]


def test_calls_one_after_the_other_are_told_as_they_come() -> None:
    chunks = [piece(0, SPELT[0], id="call_1"), piece(1, '{"b"', id="call_2"), piece(1, ": 1}")]
    for module in (messages, responses):
        told = module.run(sse(*chunks, done=False), [])
        assert told.count(b'{\\"b\\"') == 1, "the second call does not wait for the end"


def test_a_piece_of_a_call_that_is_over_is_an_error() -> None:
    chunks = [piece(0, "{}", id="a"), piece(1, '{"b":', id="b"), piece(0, " \n"), piece(0, '"x"')]
    for module in (messages, responses):
        assert module.run(sse(*chunks[:3], done=False), [])
        with pytest.raises(BadEventError):
            module.run(sse(*chunks), [])


def stop_reasons(said: dict[str, Any], deltas: list[dict[str, Any]], finish: str) -> list[str]:
    whole = json.loads(
        messages_reply(Reply(status=200, body=json.dumps(completion(said, finish)).encode()), "x").body
    )
    chunks = [*map(chunk, deltas), chunk({}, finish)]
    return [whole["stop_reason"], messages.read(messages.run(sse(*chunks), []))[-2]["delta"]["stop_reason"]]


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "tool_use"), ("tool_calls", "tool_use"), ("length", "max_tokens")]
)
def test_an_answer_with_calls_says_so(finish: str, reason: str) -> None:
    call = {"index": 0, **CALLS[0]}
    assert stop_reasons({"tool_calls": CALLS}, [{"tool_calls": [call]}], finish) == [reason] * 2
    plain = "end_turn" if finish == "stop" else None
    if plain:
        assert stop_reasons({"content": "x"}, [{"content": "x"}], finish) == [plain] * 2


def test_the_form_before_tools_is_read() -> None:
    old = {"name": "multiply", "arguments": '{"a": 17}'}
    body = json.dumps(completion({"content": None, "function_call": old}, "function_call")).encode()
    message = json.loads(messages_reply(Reply(status=200, body=body), "x").body)
    assert message["stop_reason"] == "tool_use"
    assert [(block["name"], block["input"]) for block in message["content"]] == [("multiply", {"a": 17})]
    item = responses.whole_of({"content": None, "function_call": old}, "function_call")["output"][0]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "multiply", '{"a": 17}')
    assert item["call_id"] == message["content"][0]["id"]
    pieces = [{"name": "multiply", "arguments": '{"a":'}, {"arguments": " 17}"}]
    chunks = [*(chunk({"function_call": one}) for one in pieces), chunk({}, "function_call")]
    expected = [(item["call_id"], '{"a": 17}')]
    assert calls_in(chunks) == [expected, expected]


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]},
    {"type": "text", "text": "It is "},
    {"type": "text", "text": "391."},
]


def test_content_in_parts_is_text() -> None:
    body = json.dumps(completion({"content": PARTS}, "stop")).encode()
    message = json.loads(messages_reply(Reply(status=200, body=body), "x").body)
    assert [block.get("text") or block.get("thinking") for block in message["content"]] == [
        "Let me see.",
        "It is 391.",
    ]
    items = responses.whole_of({"content": PARTS}, "stop")["output"]
    assert items[0]["summary"][0]["text"] == "Let me see."
    assert items[1]["content"][0]["text"] == "It is 391."
    chunks = [*(chunk({"content": [part]}) for part in PARTS), chunk({}, "stop")]
    for module in (messages, responses):
        assert [one["pieces"] for one in module.joined(module.run(sse(*chunks), []))] == [
            "Let me see.",
            "It is 391.",
        ]


def test_a_tool_that_failed_is_told_as_failed() -> None:
    def told(content: Any, **more: Any) -> str:
        block = {"type": "tool_result", "tool_use_id": "t", "content": content, **more}
        body = {"model": "m", "messages": [{"role": "user", "content": [block]}]}
        chat = json.loads(chat_request(parse_members(json.dumps(body).encode())))
        return chat["messages"][0]["content"]

    assert told("no such file", is_error=True) == "Error: no such file"
    assert told([{"type": "text", "text": "no"}], is_error=True) == "Error: no"
    assert told("Error: no such file", is_error=True) == "Error: no such file"
    assert told("391", is_error=False) == "391"
    assert told("391") == "391"


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
def test_a_call_that_gemini_lost_is_no_answer(reason: str) -> None:
    with pytest.raises(NotAnAnswerError, match=reason):
        chat_of_gemini(json.dumps(answer(finish=reason)).encode())
    dialect = GeminiDialect(settings=GeminiSettings(base_url="http://x"), api_key=None)
    assert dialect.opening(stream_of(answer(finish=reason))).look == "failed"
    assert dialect.opening(stream_of(answer(CALL))).look == "begun"
    late = stream_of(answer(THOUGHT, finish=None), answer(finish=reason))
    assert dialect.opening(late).look == "begun"
    translator = GeminiAsChat(asks_usage=False)
    told = translator.feed(late) + translator.end()
    assert b'"error":{' in told
    assert reason.encode() in told
    assert b"[DONE]" not in told
