"""Tags: telling words, found in any script, and sums by place."""

from __future__ import annotations

import numpy as np

from turnout.routers.tag_scores import summed, tags_of, vocabulary, words_of


def test_words_are_distinct_small_and_long_enough() -> None:
    assert words_of("The THE, a proof of_the 1997 proof!") == ["1997", "proof", "the"]
    assert words_of("\u043a\u0430\u043a\u043e\u0439 \u044f\u0437\u044b\u043a") != []
    assert words_of("") == []


def test_the_vocabulary_leaves_out_what_is_rare_or_common_and_keeps_the_frequent() -> None:
    texts = ["all sheep", "all sheep", "all goat", "all goat", "all goat", "all once"] + ["all"] * 9
    assert vocabulary(texts, least=2, most_share=0.3, size=9) == {"goat": 0, "sheep": 1}
    assert vocabulary(texts, least=2, most_share=0.3, size=1) == {"goat": 0}


def test_pairs_name_rows_and_tags_and_sums_follow_them() -> None:
    row_P, tag_P = tags_of(["goat sheep", "", "goat cow"], {"goat": 0, "sheep": 1})
    np.testing.assert_array_equal(row_P, [0, 0, 2])
    np.testing.assert_array_equal(tag_P, [0, 1, 0])
    np.testing.assert_array_equal(summed(tag_P, np.array([[1.0], [2.0], [4.0]]), 2), [[5.0], [2.0]])
