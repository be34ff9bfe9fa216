"""Tags: telling words, found in any script, and sums by place."""

from __future__ import annotations

import numpy as np

from turnout.routers.tag_scores import summed, tags_of, vocabulary, widened, words_of


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


def test_words_of_all_tasks_do_not_hide_that_a_candidate_was_kept_from_one() -> None:
    # Tags: one of the task it ran on, one of the other task, one of both. It ran on 100 of 200 queries.
    rows_TM = np.array([[60.0, 30.0], [0.0, 30.0], [100.0, 100.0]])
    share_T, total_M = np.array([0.3, 0.3, 1.0]), np.array([100.0, 100.0])
    asked = [[0], [1], [1, 2], [2], []]
    pairs = (
        np.repeat(np.arange(5), [len(tags) for tags in asked]),
        np.array([t for tags in asked for t in tags]),
    )
    found_QM = widened(np.full((5, 2), 1e-4), pairs, rows_TM, share_T, total_M, 10.0)
    kept = np.sqrt(1e-4 + (1.0 - 10.0 / 40.0) ** 2 / 12.0)
    np.testing.assert_allclose(found_QM[:4, 0], [0.01, kept, kept, 0.01])
    # A query without a tag may be of either.
    np.testing.assert_allclose(found_QM[4, 0], np.sqrt(1e-4 + 0.3 / 1.6 * 0.75**2 / 12.0))
    np.testing.assert_allclose(found_QM[:, 1], 0.01)  # half of everything: kept from nothing
    unknown_QM = widened(np.full((5, 2), np.inf), pairs, 0 * rows_TM, share_T, 0 * total_M, 10.0)
    assert np.isposinf(unknown_QM).all()
    older_QM = widened(np.full((5, 2), 1e-4), pairs, rows_TM, 0 * share_T, total_M, 10.0)
    np.testing.assert_allclose(older_QM, 0.01)
