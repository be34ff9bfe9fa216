from __future__ import annotations

from turnout.nn.depth.drllm.paths import counts_of, edits, full_path, preferred


def test_the_edits_of_a_path_are_deletions_of_one_or_two_and_one_repeat() -> None:
    assert sorted(edits((0, 1, 2), layers=3)) == sorted(
        [(1, 2), (0, 2), (0, 1), (2,), (0,), (0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2)]
    )


def test_no_edit_is_empty_too_long_or_calls_a_block_too_often() -> None:
    assert edits((0,), layers=1) == [(0, 0)]
    assert edits((0, 0), layers=1, most_calls=9) == [(0,)]
    assert (0, 0, 0, 1) not in edits((0, 0, 1), layers=2)
    assert (0, 0, 0, 1) in edits((0, 0, 1), layers=2, most_calls=3)


def test_every_path_that_edits_reach_stays_in_order() -> None:
    reached = {full_path(4)}
    for _ in range(3):
        reached |= {child for path in reached for child in edits(path, layers=4)}
    assert len(reached) > 50
    assert all(list(path) == sorted(path) for path in reached)


def test_labels_count_and_clamp() -> None:
    assert counts_of((0, 2, 2, 3, 3, 3), 5) == [1, 0, 2, 2, 0]


def test_the_shortest_path_is_preferred_then_the_fewest_distinct_blocks() -> None:
    assert preferred([(0, 1, 2), (0, 3), (1, 1)]) == (1, 1)
    assert preferred([(0, 2), (0, 1)]) == (0, 1)
