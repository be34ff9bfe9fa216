"""Texts are found and replaced in the shapes of all three APIs; what stays the same keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from turnout.gateway.conversation import read_turns, with_system
from turnout.gateway.redaction import map_texts

PARTS = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:one"}}]
CHAT = {"messages": [{"role": "system", "content": "be one"}, {"role": "user", "content": PARTS}]}
MESSAGES = {
    "system": [{"type": "text", "text": "be one"}],
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "one", "content": PARTS[:1]}]},
    ],
}
RESPONSES = {
    "instructions": "be one",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "function_call_output", "call_id": "one", "output": "one"},
    ],
}
PLAIN = {"input": "one"}


def members(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body, indent=1).encode(), type=dict[str, msgspec.Raw])


def plain(found: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in found.items()}


@pytest.mark.parametrize(
    ("body", "roles"),
    [
        (CHAT, ["system", "user"]),
        (MESSAGES, ["system", "user", "user"]),
        (RESPONSES, ["system", "user", "tool"]),
        (PLAIN, ["user"]),
    ],
)
def test_every_text_is_read_and_replaced(body: dict[str, Any], roles: list[str]) -> None:
    turns = read_turns(members(body))
    assert [turn.role for turn in turns] == roles
    assert {turn.text for turn in turns} <= {"one", "be one"}
    changed = plain(map_texts(members(body), lambda text: text.replace("one", "two")))
    assert {turn.text for turn in read_turns(members(changed))} <= {"two", "be two"}
    # Names, addresses and media are no texts.
    assert json.dumps(changed).count("one") == json.dumps(body).count("one") - len(turns)


def test_a_turn_that_stays_the_same_keeps_its_bytes() -> None:
    body = b'{"messages": [{"role":"user", "content":"\\u0061", "n": 1.50}, {"role":"user","content":"one"}]}'
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    changed = bytes(map_texts(raw, lambda text: text.replace("one", "two"))["messages"])
    assert changed == b'[{"role":"user", "content":"\\u0061", "n": 1.50},{"role":"user","content":"two"}]'


@pytest.mark.parametrize("own", [None, "mine"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("before", {None: "rule", "mine": "rule\n\nmine"}),
        ("after", {None: "rule", "mine": "mine\n\nrule"}),
        ("instead", {None: "rule", "mine": "rule"}),
        ("if_missing", {None: "rule", "mine": "mine"}),
    ],
)
@pytest.mark.parametrize("protocol", ["chat", "messages", "responses"])
def test_a_system_prompt_stands_where_the_rule_says(
    protocol: str, place: str, expected: dict[str | None, str], own: str | None
) -> None:
    turn = [{"role": "user", "content": "hello"}]
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"messages": ([{"role": "developer", "content": own}] if own else []) + turn},
        "messages": {"messages": turn} | ({"system": own} if own else {}),
        "responses": {"input": turn} | ({"instructions": own} if own else {}),
    }
    changed = with_system(members(bodies[protocol]), "rule", place=place, protocol=protocol)
    turns = read_turns(changed)
    assert [found.text for found in turns] == [expected[own], "hello"]
    if protocol == "chat" and own:
        assert turns[0].role == "developer"


def test_odd_shapes_are_left_alone() -> None:
    odd = members({"messages": ["text", 3, {"role": "user"}, {"content": None}], "input": {"a": 1}})
    assert read_turns(odd) == ()
    assert plain(map_texts(odd, str.upper)) == {
        **plain(odd),
        "messages": ["TEXT", 3, {"role": "user"}, {"content": None}],
    }


def test_texts_to_embed_are_read_and_replaced_and_nobody_is_instructed() -> None:
    body = members({"input": ["one", "two", "one"]})
    assert [turn.text for turn in read_turns(body)] == ["one", "two", "one"]
    assert plain(map_texts(body, lambda text: text.replace("one", "1"))) == {"input": ["1", "two", "1"]}
    tokens = members({"input": [[1, 2], [3]]})
    assert plain(map_texts(tokens, str.upper)) == plain(tokens)
    assert with_system(body, "be kind", place="before", protocol="embeddings") == body


ARGUMENTS = '{"to": ["ann", {"cc": "ann"}], "n": 1.50, "ann": 7}'
CALLS: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "ann", "function": {
        "name": "ann", "arguments": ARGUMENTS}}]}]}, "assistant"),
    ({"messages": [{"role": "assistant", "function_call": {
        "name": "ann", "arguments": ARGUMENTS}}]}, "assistant"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "ann", "name": "ann",
        "input": json.loads(ARGUMENTS)}]}]}, "assistant"),
    ({"input": [{"type": "function_call", "call_id": "ann", "name": "ann", "arguments": ARGUMENTS}]}, "tool"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "role"), CALLS)
def test_what_a_call_carried_is_read_and_replaced(body: dict[str, Any], role: str) -> None:
    (turn,) = read_turns(members(body))
    assert (turn.role, turn.text) == (role, "ann\nann")
    changed = plain(map_texts(members(body), lambda text: text.replace("ann", "[NAME]")))
    assert read_turns(members(changed))[0].text == "[NAME]\n[NAME]"
    whole = json.dumps(changed)
    # Identifiers, names of tools and of arguments stay.
    assert whole.count("ann") == json.dumps(body).count("ann") - 2
    assert "1.5" in whole


@pytest.mark.parametrize("text", ['{"to": "ann"', "ann", '"ann"'])
def test_arguments_that_are_no_object_are_one_text(text: str) -> None:
    body = {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "n", "input": text}]}
    changed = plain(map_texts(members(body), lambda said: said.replace("ann", "bob")))
    assert changed["input"][0]["input"] == text.replace("ann", "bob")


def test_arguments_without_a_find_keep_their_bytes() -> None:
    call = b'{"role": "assistant", "tool_calls": [{"function": {"arguments": "{ \\"a\\" : 1.50 }"}}]}'
    body = {"messages": msgspec.Raw(b"[" + call + b"]")}
    assert bytes(map_texts(body, str)["messages"]) == b"[" + call + b"]"
