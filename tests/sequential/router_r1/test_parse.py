"""What the policy writes is an action or a violation with a name, and never an exception."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core import InputError
from turnout.sequential.router_r1.parse import Answer, Fault, Grammar, Route, Violation, closed, parse
from turnout.sequential.router_r1.tags import DEFAULT_TAGS, Tags

POOL = ("small", "large", "llama3:8b", "large[effort=high]")
GRAMMAR = Grammar(candidates=POOL)
STRICT = Grammar(candidates=POOL, free_text=False, max_chars=200)


@pytest.mark.parametrize(
    ("text", "name", "query"),
    [
        ("<think>hm</think><search>small: who?</search>", "small", "who?"),
        ("<search>small: who?", "small", "who?"),
        ("let me see\n<search> Small :  a: b </search>\n", "small", "a: b"),
        ("<search>llama3:8b: who?</search>", "llama3:8b", "who?"),
        ("<search>large[effort=high]: who?</search>", "large[effort=high]", "who?"),
    ],
)
def test_a_call_is_read(text: str, name: str, query: str) -> None:
    assert parse(text, GRAMMAR) == Route(candidate=name, text=query)


def test_an_answer_is_read_with_or_without_its_end() -> None:
    assert parse("<think>x</think>\n<answer> 4 < 5 </answer>", STRICT) == Answer(text="4 < 5")
    assert parse("<answer>42", STRICT) == Answer(text="42")


CASES = {
    "empty": " \n",
    "too_long": "x" * 201,
    "no_action": "<think>nothing to do</think>",
    "nested": "<think>I <answer>4</answer></think>",
    "stray_tag": "</think><answer>4</answer>",
    "unclosed": "<think>and so on",
    "forged_information": "<information>4</information><answer>4</answer>",
    "two_actions": "<search>small: a</search><answer>4</answer>",
    "text_after": "<answer>4</answer> I hope this helps",
    "text_outside": "Sure! <answer>4</answer>",
    "empty_answer": "<answer> </answer>",
    "no_model": "<search>who is it?</search>",
    "unknown_model": "<search>smal: who?</search>",
    "empty_query": "<search>small: </search>",
}


@pytest.mark.parametrize("name", CASES)
def test_every_violation_has_its_name_and_says_what_to_do(name: str) -> None:
    found = parse(CASES[name], STRICT)
    assert isinstance(found, Violation)
    assert found.name == name
    assert "; " in found.why


def test_no_violation_of_the_parser_goes_untested() -> None:
    assert set(CASES) | {"no_turns", "nothing_to_pass_on"} == set(typing.get_args(Fault))


def test_a_misspelt_model_is_answered_with_the_nearest() -> None:
    found = parse(CASES["unknown_model"], GRAMMAR)
    assert isinstance(found, Violation)
    assert "did you mean 'small'" in found.why


def test_a_forged_observation_after_a_call_is_no_call() -> None:
    text = "<search>small: a</search><information>b</information><answer>b</answer>"
    found = parse(text, GRAMMAR)
    assert isinstance(found, Violation)
    assert found.name == "forged_information"


def test_without_sub_queries_a_name_is_enough() -> None:
    plain = Grammar(candidates=POOL, sub_queries=False)
    assert parse("<search>small</search>", plain) == Route(candidate="small", text="")
    assert parse("<search>llama3:8b: whatever</search>", plain) == Route(candidate="llama3:8b", text="")
    assert isinstance(parse("<search>tiny</search>", plain), Violation)


def test_tags_are_free_but_must_differ() -> None:
    tags = Tags(think="t", route="ask", information="back", answer="end")
    assert parse("<t>x</t><ask>small: y</ask>", Grammar(candidates=POOL, tags=tags)) == Route(
        candidate="small", text="y"
    )
    for names in ({"think": "search"}, {"route": "a b"}, {"answer": ""}):
        with pytest.raises(InputError, match="four different names"):
            Tags(**names)


pieces = st.lists(
    st.sampled_from(
        [f"<{slash}{name}>" for slash in ("", "/") for name in DEFAULT_TAGS.names]
        + ["small", ":", " ", "what?", "[last]", "<", "\n", "nobody: x"]
    ),
    max_size=12,
).map("".join)


@given(st.one_of(pieces, st.text()))
def test_whatever_is_written_is_read_without_an_exception(text: str) -> None:
    found = parse(text, GRAMMAR)
    if isinstance(found, Route):
        assert found.candidate in POOL
        assert found.text
    elif isinstance(found, Answer):
        assert found.text.strip() == found.text != ""
    else:
        assert found.name in typing.get_args(Fault)


@given(pieces)
def test_closing_what_a_stop_text_cut_changes_nothing_that_is_read(text: str) -> None:
    found = parse(text, GRAMMAR)
    if not isinstance(found, Violation):
        assert parse(closed(text, DEFAULT_TAGS), GRAMMAR) == found
        # A text that is read as an action ends it: one tag pair, closed.
        assert closed(closed(text, DEFAULT_TAGS), DEFAULT_TAGS) == closed(text, DEFAULT_TAGS)
