"""A table keeps what was recorded: dense views, selections and splits lose and invent nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.tables import hand_table, tables
from turnout.core.errors import InputError, TableError, UnknownNameError
from turnout.core.outcomes import OutcomeTable, split_groups


def test_a_dense_view_averages_over_samples_and_keeps_unknown_unknown() -> None:
    table = hand_table()
    np.testing.assert_array_equal(table.quality_QM, [[0.5, 0.5], [np.nan, np.nan], [np.nan, 0.25]])
    np.testing.assert_allclose(table.cost_usd_QM, [[0.003, np.nan], [0.001, np.nan], [np.nan, 0.003]])
    np.testing.assert_array_equal(table.observed_QM, [[True, True], [False, False], [False, True]])
    assert np.isnan(table.latency_s_QM).all()
    assert np.isnan(table.output_tokens_QM).all()


def test_a_dense_view_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        hand_table().quality_QM[0, 0] = 1.0


def test_a_table_says_how_large_it_is() -> None:
    table = hand_table()
    assert repr(table) == "OutcomeTable(3 queries x 2 candidates, 5 rows)"
    assert table.names == ("owl", "ant")
    assert table.tasks == ("maths", "story", "maths")
    assert table.has_costs
    assert not hand_table(cost_usd=None).has_costs


def test_a_table_without_rows_is_all_unknown() -> None:
    table = hand_table(query_index=[], candidate_index=[], sample=[], quality=[], cost_usd=[])
    assert table.num_rows == 0
    assert np.isnan(table.quality_QM).all()


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({"split": "train"}, ["q0", "q2"]),
        ({"task": "story"}, ["q1"]),
        ({"ids": ["q2", "q0"]}, ["q0", "q2"]),
        ({"split": "train", "ids": ["q2", "q1"]}, ["q2"]),
        ({}, ["q0", "q1", "q2"]),
    ],
)
def test_a_selection_keeps_the_matching_queries_in_order(choice: dict[str, Any], ids: list[str]) -> None:
    part = hand_table().select(**choice)
    assert [query.id for query in part.queries] == ids
    keep = [query.id in ids for query in hand_table().queries]
    np.testing.assert_array_equal(part.quality_QM, hand_table().quality_QM[keep])


def test_a_selection_of_candidates_takes_the_given_order() -> None:
    part = hand_table().select(candidates=["ant", "owl"])
    np.testing.assert_array_equal(part.quality_QM, hand_table().quality_QM[:, ::-1])
    assert hand_table().select(candidates=["ant"]).num_rows == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"split": "trian"}, r"no query has split 'trian'; did you mean 'train'\?"),
        ({"task": "poetry"}, r"no query has task 'poetry'; did you mean 'story'"),
        ({"ids": ["q0", "q9"]}, r"select: ids; got: 'q9'; did you mean"),
        ({"candidates": ["owll"]}, r"select: candidates; got: 'owll'; did you mean 'owl'\?"),
    ],
)
def test_a_name_that_the_table_lacks_is_refused(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        hand_table().select(**choice)


def test_a_selection_of_nothing_is_refused() -> None:
    with pytest.raises(TableError, match="the selection holds no query; check the split or task names"):
        hand_table().select(split="train", task="story")


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False], np.array([[True, True, True]])])
def test_a_mask_of_another_kind_or_length_is_refused(mask: Any) -> None:
    with pytest.raises(InputError, match=r"where: keep_Q; allowed: booleans of shape \(Q,\) = \(3,\); got: "):
        hand_table().where(mask)


def test_other_splits_costs_and_extras_replace_the_old_ones() -> None:
    table = hand_table(extras={"answer": ["4", "5", "", "x", "y"]})
    assert table.with_splits([None, "a", "b"]).splits == (None, "a", "b")
    np.testing.assert_array_equal(table.with_costs(np.zeros(5)).cost_usd, np.zeros(5))
    more = table.with_extras({"judge": [1, 2, 3, 4, 5], "answer": ["n"] * 5})
    assert list(more.extras["judge"]) == [1, 2, 3, 4, 5]
    assert list(more.extras["answer"]) == ["n"] * 5
    assert table.extras["answer"][0] == "4"


def test_an_extra_may_hold_lists() -> None:
    table = hand_table(extras={"votes": [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]})
    assert table.extras["votes"][1] == [3, 4]
    assert list(table.select(ids=["q2"]).extras["votes"]) == [[7, 8]]


@given(tables(), st.data())
@settings(max_examples=40)
def test_selecting_keeps_every_row_of_the_kept_queries(table: OutcomeTable, data: st.DataObject) -> None:
    keep_Q = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(table.queries), max_size=len(table.queries)))
    )
    if not keep_Q.any():
        keep_Q[0] = True
    part = table.where(keep_Q)
    assert part.num_rows == int(keep_Q[table.query_index].sum())
    np.testing.assert_array_equal(part.quality_QM, table.quality_QM[keep_Q])
    assert part.splits == tuple(split for split, keep in zip(table.splits, keep_Q, strict=True) if keep)


@given(tables())
@settings(max_examples=40)
def test_a_dense_view_is_the_mean_of_the_known_samples(table: OutcomeTable) -> None:
    for q in range(len(table.queries)):
        for m in range(len(table.candidates)):
            cell = table.cost_usd[(table.query_index == q) & (table.candidate_index == m)]
            known = cell[~np.isnan(cell)]
            expected = known.sum() / known.size if known.size else np.nan
            np.testing.assert_allclose(table.cost_usd_QM[q, m], expected, rtol=1e-12)


keys = st.lists(st.integers(0, 30), min_size=1, max_size=200)
shares = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4).map(
    lambda values: {f"part{i}": value / sum(values) for i, value in enumerate(values)}
)


@given(keys, shares, st.integers(0, 2**31))
def test_a_group_is_never_cut(keys: list[int], shares: dict[str, float], seed: int) -> None:
    parts = split_groups(keys, shares, seed=seed)
    where = dict(zip(keys, parts, strict=True))
    assert [where[key] for key in keys] == parts
    assert set(parts) <= set(shares)


@given(keys, shares, st.integers(0, 2**31))
def test_every_part_has_its_share_to_one_group(keys: list[int], shares: dict[str, float], seed: int) -> None:
    parts = split_groups(keys, shares, seed=seed)
    largest = max(keys.count(key) for key in set(keys))
    for name, share in shares.items():
        # A part is filled only while it lacks most of its share, so it never passes it by more than a group.
        assert parts.count(name) <= share * len(keys) + largest + 1e-9


def test_single_queries_are_split_exactly() -> None:
    parts = split_groups(list(range(100)), {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert [parts.count(name) for name in ("train", "val", "test")] == [70, 10, 20]


def test_a_split_depends_on_the_seed_alone() -> None:
    shares = {"train": 0.5, "test": 0.5}
    first, again = (split_groups(list(range(50)), shares, seed=1) for _ in range(2))
    assert first == again
    assert first != split_groups(list(range(50)), shares, seed=2)


@pytest.mark.parametrize(
    "shares", [{}, {"a": 0.0}, {"a": 1.5}, {"a": 0.7, "b": 0.7}, {"a": 0.5, "b": 0.2}, {"a": float("nan")}]
)
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(
        InputError, match=r"split: shares; allowed: numbers in \(0, 1\] that sum to 1; got: {"
    ):
        split_groups([1, 2, 3], shares, seed=0)


def test_splitting_by_query_keeps_groups_together() -> None:
    parts = hand_table().split_by_query({"a": 0.5, "b": 0.5}, seed=0, groups=["x", "y", "x"])
    together = next(part for part in parts.values() if any(query.id == "q0" for query in part.queries))
    assert {query.id for query in together.queries} == {"q0", "q2"}
    assert sum(part.num_rows for part in parts.values()) == 5


def test_splitting_by_task_keeps_a_task_in_one_part() -> None:
    parts = hand_table().split_by_task({"a": 0.5, "b": 0.5}, seed=0)
    assert sorted(len(set(part.tasks)) for part in parts.values()) == [1, 1]


def test_a_part_that_would_be_empty_is_refused() -> None:
    with pytest.raises(
        TableError, match=r"the part '\w' of the split would hold no query; got: .2 groups of queries"
    ):
        hand_table().split_by_task({"a": 0.4, "b": 0.3, "c": 0.3}, seed=0)


@pytest.mark.parametrize("groups", [["x"], ["x"] * 4])
def test_groups_of_another_length_are_refused(groups: Sequence[object]) -> None:
    with pytest.raises(InputError, match=r"groups; allowed: one per query \(3\); got: "):
        hand_table().split_by_query({"a": 1.0}, seed=0, groups=groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": ["good"] * 5}, r"column 'quality'; allowed: numbers or NaN for unknown; got: .*'good'"),
        ({"quality": [0.5] * 4}, r"column 'quality'; allowed: shape \(N,\) = \(5,\); got: \(4,\)"),
        ({"cost_usd": np.zeros((5, 1))}, r"column 'cost_usd'; allowed: shape .*; got: \(5, 1\)"),
        ({"extras": {"answer": ["x"]}}, "extra 'answer'; allowed: 5 values; got: 1"),
        ({"splits": ["train"]}, r"splits; allowed: one per query \(3\); got: 1"),
        ({"references": ["4"]}, r"references; allowed: one per query \(3\); got: 1"),
    ],
)
def test_a_column_of_another_kind_or_length_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        hand_table(**changes)


@pytest.mark.parametrize("keep", [[True], [1, 0], np.ones((2, 2), np.bool_)])
def test_a_mask_of_rows_or_queries_has_their_length(keep: Any) -> None:
    table = hand_table()
    for select, letter in ((table.where, "Q"), (table.with_rows, "N")):
        with pytest.raises(InputError, match=rf"booleans of shape \({letter},\)"):
            select(keep)


def test_some_rows_keep_queries_candidates_and_every_column() -> None:
    table = hand_table()
    part = table.with_rows(np.arange(table.num_rows) > 0)
    assert (part.queries, part.candidates) == (table.queries, table.candidates)
    assert part.num_rows == table.num_rows - 1
    for name in ("quality", "cost_usd", "sample", "latency_s"):
        np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[1:])
    assert table.with_rows(np.ones(table.num_rows, np.bool_)).fingerprint == table.fingerprint
