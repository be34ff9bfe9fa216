"""Reading along with a thought: what is told early is a beginning of the answer, wherever the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnout.sequential.router_r1.parse import Answer, Grammar, parse
from turnout.sequential.router_r1.tags import PASS_ON
from turnout.sequential.router_r1.watch import AnswerWatch

GRAMMAR = Grammar(candidates=("small", "large"))
STRICT = Grammar(candidates=("small",), free_text=False)
PARTS = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<search>", "< / answer >", "small: what?", "a < b", "<",
     " ", "\n", "<b>bold</b>", PASS_ON, "[la", "word", "an", "</", "<ans", "wer>", "<  "]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=12).map("".join)


def told(text: str, grammar: Grammar, cuts: list[int]) -> list[str]:
    watch = AnswerWatch(grammar)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [watch.feed(text[low:high]) for low, high in pairwise(places)]


@pytest.mark.parametrize("grammar", [GRAMMAR, STRICT])
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=30))
@example(text="<answer>one  <      /answer>", cuts=list(range(30)))
@example(text="<answer>" + PASS_ON, cuts=list(range(30)))
@example(text="<think>so</think><answer>  two words ", cuts=[20])
def test_what_is_told_begins_the_answer(grammar: Grammar, text: str, cuts: list[int]) -> None:
    parsed = parse(text, grammar)
    early = "".join(told(text, grammar, cuts))
    if isinstance(parsed, Answer):
        assert parsed.text.startswith(early)
        if parsed.text == PASS_ON:
            assert early == ""


def test_an_answer_is_told_piece_by_piece() -> None:
    text = "<think>hm < hm</think>\n<answer> one two <b>three</b> 4 < 5, yes"
    watch = AnswerWatch(GRAMMAR)
    pieces = [watch.feed(char) for char in text]
    assert "".join(pieces) == "one two <b>three</b> 4 < 5, yes"
    assert sum(map(bool, pieces)) > 15


@pytest.mark.parametrize(
    "text",
    [
        "<search>small: <answer>x",
        "<think>an <answer>x",
        "</answer>y",
        "<search>small: q</search><answer>x",
        "x",
    ],
)
def test_what_is_no_answer_is_not_told(text: str) -> None:
    assert "".join(told(text, GRAMMAR, list(range(len(text))))) == ""


def test_a_text_that_is_too_long_is_not_told_further() -> None:
    watch = AnswerWatch(Grammar(candidates=("small",), max_chars=30))
    assert watch.feed("<answer>one two") == "one two"
    assert watch.feed(" three" * 10) == ""
