"""What a request needs is read from it, and the rest of it is copied byte for byte."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from turnout.gateway.errors import ApiError
from turnout.gateway.wire import parse_chat, render, with_usage

USER = {"role": "user", "content": "abcd"}


def parse(**fields: object):
    return parse_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": None}, set()),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": "odd"}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"logprobs": False}, set()),
        ({"modalities": ["text", "audio"]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, USER]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, {"audio"}),
    ],
)
def test_needs_are_read_from_the_request(fields: dict, needs: set[str]) -> None:
    assert parse(**fields).needs == needs


def test_the_query_is_the_last_user_message_with_its_turns_counted() -> None:
    messages = [
        {"role": "system", "content": "s" * 6},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{"type": "text", "text": "se"}, {"type": "text", "text": "cond"}]},
        {"role": "assistant", "content": "partial"},
    ]
    query = parse(messages=messages).query("id")
    assert (query.id, query.text, query.num_turns) == ("id", "se\ncond", 2)
    assert query.input_tokens == -(-(6 + 5 + len('[{"id": "1"}]') + 7 + 7) // 4)


def test_a_request_without_a_user_has_no_text() -> None:
    request = parse(messages=[{"role": "system", "content": "x"}])
    assert (request.text, request.num_turns) == (None, 0)


def test_tool_definitions_count_as_input() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 400}}]
    assert parse(tools=tools).input_tokens > 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.given(
    members=st.dictionaries(st.text(), json_values, max_size=5),
    ascii_only=st.booleans(),
    indent=st.none() | st.just(1),
)
@hypothesis.settings(max_examples=80)
def test_rendering_keeps_every_member(members: dict, ascii_only: bool, indent: int | None) -> None:
    whole = {**members, "model": "m", "messages": [USER]}
    try:
        body = json.dumps(whole, ensure_ascii=ascii_only, indent=indent).encode()
        request = parse_chat(body)
    except (UnicodeEncodeError, ApiError):
        hypothesis.reject()
    again = render({**request.members, "model": b'"other"'})
    assert json.loads(again) == {**whole, "model": "other"}


def test_options_are_added_to_and_not_replaced() -> None:
    members = parse(stream=True, stream_options={"x": 1.0}).members
    assert json.loads(bytes(with_usage(members)["stream_options"])) == {"x": 1.0, "include_usage": True}
    assert json.loads(bytes(with_usage({})["stream_options"])) == {"include_usage": True}


@pytest.mark.parametrize(
    ("options", "asks"),
    [(None, False), ({}, False), ({"include_usage": False}, False), ({"include_usage": True}, True)],
)
def test_whether_the_client_asked_for_usage(options: dict | None, asks: bool) -> None:
    assert parse(stream=True, stream_options=options).asks_usage is asks
