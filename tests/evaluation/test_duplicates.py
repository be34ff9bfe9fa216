from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.evaluation import near_duplicates
from turnout.evaluation.duplicates import find_duplicates
from turnout.evaluation.minhash import similar_pairs
from turnout.evaluation.shingles import normal_form, shingle_sets

STORY = (
    "A farmer has seventeen sheep and sells nine of them at the market on Monday; on Tuesday he buys four "
    "more from a neighbour who lives beyond the hill. How many sheep does the farmer have on Wednesday?"
)


def groups(texts: list[str | None]) -> list[int]:
    found: list[int] = near_duplicates(texts).tolist()
    return found


def test_case_space_and_unicode_form_do_not_make_a_text_new() -> None:
    assert groups(["Hello  World", "hello world\n", "HELLO WORLD", "hello there world"]) == [0, 0, 0, 1]
    assert normal_form("\ufb01ne  STRASSE") == normal_form("FINE strasse")


def test_one_changed_word_in_a_long_text_is_nearly_the_same() -> None:
    assert groups([STORY, STORY.replace("Monday", "Friday"), "something else entirely"]) == [0, 0, 1]


def test_another_question_in_the_same_words_is_not() -> None:
    other = "How many sheep has a farmer who buys nine of them at the market beyond the hill on Monday?"
    assert groups([STORY, other]) == [0, 1]


def test_numbers_and_operators_of_short_questions_tell_them_apart() -> None:
    assert (
        len(set(groups([f"What is {a} {sign} {b}?" for a in (2, 3) for b in (4, 5) for sign in "+-*"]))) == 12
    )


def test_texts_without_spaces_are_compared_by_character() -> None:
    base = (
        "\u4e2d\u56fd\u7684\u9996\u90fd\u662f\u54ea\u4e00\u4e2a\u57ce\u5e02\u8bf7\u56de\u7b54"
        "\u8fd9\u4e2a\u95ee\u9898\u5e76\u4e14\u8bf4\u660e\u7406\u7531"
    )
    assert groups([base, base[:-1] + "\u610f", base[::-1]]) == [0, 0, 1]


def test_unreadable_and_blank_texts_repeat_nothing() -> None:
    assert groups([None, None, "", "  ", "a"]) == [0, 1, 2, 3, 4]
    assert near_duplicates([]).shape == (0,)


def test_a_benchmark_with_a_long_template_stays_apart() -> None:
    rng = random.Random(0)
    words = [f"w{k}" for k in range(4000)]
    template = " ".join(f"instruction{k}" for k in range(120))
    texts: list[str | None] = [
        f"{template} Question: {' '.join(rng.choices(words, k=12))}? Answer:" for _ in range(300)
    ]
    assert len(set(groups(texts))) == 300
    # Two of them that differ in one of their own words are still found behind the template.
    own = str(texts[0]).split()
    own[-3] = "other"
    twin = [*texts, " ".join(own)]
    assert near_duplicates(twin, threshold=0.6).tolist()[-1] == 0


def test_a_megabyte_is_no_trouble() -> None:
    long = "word " * 200_000
    assert groups([long, long + "end", "short"])[2] != 0


def test_the_pairs_are_those_of_a_comparison_of_all_with_all() -> None:
    rng = random.Random(1)
    words = [f"w{k}" for k in range(500)]
    texts = []
    for _ in range(60):
        base = rng.choices(words, k=60)
        texts.append(" ".join(base))
        for changes in (1, 4, 15):
            copy = list(base)
            for place in rng.sample(range(60), changes):
                copy[place] = rng.choice(words)
            texts.append(" ".join(copy))
    sets = shingle_sets(texts)
    parts = np.split(sets.shingle_N, np.cumsum(sets.size_T)[:-1])
    members = [set(part.tolist()) for part in parts]
    wanted = {
        (a, b)
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if len(members[a] & members[b]) >= 0.8 * len(members[a] | members[b])
    }
    first, second, similarity = similar_pairs(sets, threshold=0.8, seed=0)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == wanted
    assert len(wanted) > 50
    a, b = int(first[0]), int(second[0])
    assert similarity[0] == pytest.approx(len(members[a] & members[b]) / len(members[a] | members[b]))


@given(
    st.lists(st.sampled_from(["one two three", "One  two three", "four five six seven", STORY]), max_size=8)
)
def test_the_order_of_texts_does_not_change_who_is_together(texts: list[str | None]) -> None:
    forward, backward = near_duplicates(texts), near_duplicates(texts[::-1])[::-1]
    same = forward[:, None] == forward[None, :]
    assert (same == (backward[:, None] == backward[None, :])).all()


@pytest.mark.slow
def test_twenty_thousand_texts_take_seconds() -> None:
    rng = np.random.default_rng(0)
    ids = rng.zipf(1.3, (20_000, 60)) % 30_000
    texts: list[str | None] = [" ".join(f"t{k}" for k in row) for row in ids.tolist()]
    texts[-1] = texts[0]
    found = find_duplicates(texts)
    assert found.exact_Q[-1] == 0
    assert len(set(found.exact_Q.tolist())) == 19_999


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a"], threshold=0.0)
