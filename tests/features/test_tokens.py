"""Tokens are words, numbers, signs and single characters of scripts without spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.features.tokens import clip, grams, split


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World", ["hello", ",", "world"]),
        ("x_1 = 42;", ["x", "_", "1", "=", "42", ";"]),
        ("\u4f60\u597d world", ["\u4f60", "\u597d", "world"]),
        ("\u00c9cole", ["\u00e9cole"]),
        ("", []),
    ],
)
def test_a_text_is_cut_where_it_should_be(text: str, tokens: list[str]) -> None:
    assert split(text) == tokens


@given(st.text(st.characters()))
def test_no_token_holds_white_space(text: str) -> None:
    # The vocabulary is stored as lines, so a token with a line break would tear it.
    assert all(len(token.split()) == 1 for token in split(text) if not token.isspace())
    assert all("\n" not in token for token in split(text))


def test_grams_see_the_edges_of_a_word() -> None:
    assert grams("cat", 3, 4) == ["<ca", "cat", "at>", "<cat", "cat>"]
    assert grams("cat", 0, 0) == []


def test_grams_of_no_length_are_none() -> None:
    assert "" not in grams("cat", 0, 2)


@given(st.text(max_size=60), st.integers(1, 30))
def test_clip_keeps_both_ends(text: str, max_chars: int) -> None:
    short = clip(text, max_chars)
    assert len(short) <= max_chars + 1
    if len(text) <= max_chars:
        assert short == text
    else:
        assert short.startswith(text[: (max_chars + 1) // 2])
        assert max_chars == 1 or short.endswith(text[-(max_chars // 2) :])


@given(st.text(st.characters(codec="ascii", min_codepoint=32)))
def test_plain_text_is_cut_as_any_other(text: str) -> None:
    # A character outside ASCII takes the general way; between spaces it adds one token and no more.
    assert [*split(text), "\u00e9"] == split(f"{text} \u00e9")
