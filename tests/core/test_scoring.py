"""Score minus price, and the choice of the largest: exact under every order, price and gap."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core import scoring
from turnout.core.decision import NONE
from turnout.core.scoring import levelled, name_order, rank, score

NAMES = ("owl", "ant", "yak", "elk")


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    """Draw quality, cost and mask of shape (Q, 4), with ties and unknown values."""
    num_queries = draw(st.integers(0, 5))
    shape = (num_queries, len(NAMES))
    tied = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan])

    def array(elements: st.SearchStrategy[Any], dtype: Any) -> np.ndarray:
        size = shape[0] * shape[1]
        return np.array(draw(st.lists(elements, min_size=size, max_size=size)), dtype).reshape(shape)

    return {
        "quality_QM": array(tied | st.floats(0, 1), np.float64),
        "cost_usd_QM": array(tied | st.floats(0, 10), np.float64),
        "allowed_QM": array(st.booleans(), np.bool_),
        "price": draw(st.sampled_from([0.0, 0.5, 3.0, math.inf])),
    }


def ranking(pool: dict[str, Any], columns: list[int] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    order = list(range(len(NAMES))) if columns is None else columns
    quality_QM, cost_usd_QM, allowed_QM = (
        pool[name][:, order] for name in ("quality_QM", "cost_usd_QM", "allowed_QM")
    )
    names = tuple(NAMES[column] for column in order)
    score_QM = score(quality_QM, cost_usd_QM, pool["price"])
    return rank(score_QM, allowed_QM, cost_usd_QM, names, quality_QM=quality_QM), names


def by_name(ranked_QM: np.ndarray, names: tuple[str, ...]) -> list[list[str | None]]:
    return [[None if index == NONE else names[index] for index in row] for row in ranked_QM]


@given(pools(), st.permutations(range(len(NAMES))))
def test_the_order_of_candidates_never_decides(pool: dict[str, Any], order: list[int]) -> None:
    assert by_name(*ranking(pool)) == by_name(*ranking(pool, list(order)))


@pytest.mark.parametrize("num_queries", [1, 3])
def test_a_last_bit_of_the_score_does_not_choose_the_dearer(num_queries: int) -> None:
    score_QM = np.tile([0.3, 0.1 + 0.2, 0.3 - 1e-16, 0.2], (num_queries, 1))
    assert score_QM[0, 1] > score_QM[0, 0] > score_QM[0, 2] - 1e-15
    cost_usd_QM = np.tile([2.0, 3.0, 1.0, 0.0], (num_queries, 1))
    allowed_QM = np.ones(score_QM.shape, np.bool_)
    ranked_QM = rank(levelled(score_QM, allowed_QM), allowed_QM, cost_usd_QM, NAMES)
    assert ranked_QM.tolist() == [[2, 0, 1, 3]] * num_queries
    # What is more than rounding counts, however little it is.
    score_QM[:, 1] += 1e-9
    assert (rank(levelled(score_QM, allowed_QM), allowed_QM, cost_usd_QM, NAMES)[:, 0] == 1).all()
    # Who may not serve ties with nobody.
    allowed_QM[:, 1] = False
    assert (rank(levelled(score_QM, allowed_QM), allowed_QM, cost_usd_QM, NAMES)[:, 0] == 2).all()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.3, 0.3 - 1e-16, 0.3 - 1e-9, -2.0, 0.0, 1e300, np.nan, np.inf, -np.inf]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_one_query_is_levelled_as_many_are(given: list[tuple[float, bool]]) -> None:
    score_1M = np.array([[score for score, _ in given]])
    allowed_1M = np.array([[may for _, may in given]])
    many_QM = levelled(np.repeat(score_1M, 2, axis=0), np.repeat(allowed_1M, 2, axis=0))
    assert np.array_equal(levelled(score_1M, allowed_1M), many_QM[:1], equal_nan=True)


@given(pools())
def test_a_ranking_holds_the_allowed_once_and_then_nobody(pool: dict[str, Any]) -> None:
    ranked_QM, _ = ranking(pool)
    for row, allowed_M in zip(ranked_QM, pool["allowed_QM"], strict=True):
        count = int(allowed_M.sum())
        assert sorted(row[:count]) == np.flatnonzero(allowed_M).tolist()
        assert (row[count:] == NONE).all()


@given(pools())
def test_a_known_score_stands_before_an_unknown_one_and_a_higher_before_a_lower(pool: dict[str, Any]) -> None:
    score_QM = score(pool["quality_QM"], pool["cost_usd_QM"], pool["price"])
    ranked_QM, _ = ranking(pool)
    for row, ranked in zip(score_QM, ranked_QM, strict=True):
        values = row[[index for index in ranked if index != NONE]]
        known = values[~np.isnan(values)]
        assert np.isnan(values[known.size :]).all()
        assert (np.diff(known) <= 0).all()


@given(pools(), st.integers(-10, 10))
def test_the_unit_of_money_does_not_matter(pool: dict[str, Any], exponent: int) -> None:
    # Powers of two are exact in floating point; cents instead of dollars change cost and price alike.
    unit = 2.0**exponent
    other = {**pool, "cost_usd_QM": pool["cost_usd_QM"] * unit, "price": pool["price"] / unit}
    assert by_name(*ranking(pool)) == by_name(*ranking(other))


@given(pools(), st.integers(-3, 3))
def test_the_scale_of_quality_does_not_matter(pool: dict[str, Any], exponent: int) -> None:
    unit = 2.0**exponent
    other = {**pool, "quality_QM": pool["quality_QM"] * unit, "price": pool["price"] * unit}
    assert by_name(*ranking(pool)) == by_name(*ranking(other))


@given(pools(), st.floats(0.01, 5), st.floats(0.01, 5))
def test_the_cost_of_the_choice_never_rises_with_the_price(
    pool: dict[str, Any], low: float, step: float
) -> None:
    quality_QM = np.nan_to_num(np.round(pool["quality_QM"], 3))
    cost_usd_QM = np.nan_to_num(np.round(pool["cost_usd_QM"], 3))
    known = {**pool, "quality_QM": quality_QM, "cost_usd_QM": cost_usd_QM}
    chosen = [ranking({**known, "price": price})[0][:, 0] for price in (0.0, low, low + step, math.inf)]
    rows = np.arange(quality_QM.shape[0])
    for before, after in pairwise(chosen):
        served_Q = before != NONE
        gap_Q = cost_usd_QM[rows, after] - cost_usd_QM[rows, before]
        assert (gap_Q[served_Q] <= 1e-9).all()


def test_a_score_is_quality_minus_price_times_usd() -> None:
    quality_QM, cost_usd_QM = np.array([[0.9, 0.4, np.nan]]), np.array([[0.02, np.nan, 0.01]])
    np.testing.assert_allclose(score(quality_QM, cost_usd_QM, 10.0), [[0.7, np.nan, np.nan]])
    np.testing.assert_array_equal(score(quality_QM, cost_usd_QM, 0.0), quality_QM)
    np.testing.assert_array_equal(score(quality_QM, cost_usd_QM, math.inf), [[-0.02, np.nan, np.nan]])


def test_a_score_at_price_zero_is_a_copy() -> None:
    quality_QM = np.array([[0.5]])
    score(quality_QM, quality_QM, 0.0)[0, 0] = 9.0
    assert quality_QM[0, 0] == 0.5


@pytest.mark.parametrize(
    ("score_M", "cost_M", "quality_M", "expected"),
    [
        ([0.5, 0.5, 0.5, 0.5], [2, 1, 3, 4], [0, 0, 0, 0], ["ant", "owl", "yak", "elk"]),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [0.1, 0.2, 0.3, 0.3], ["elk", "yak", "ant", "owl"]),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [0, 0, 0, 0], ["ant", "elk", "owl", "yak"]),
        ([0.5, 0.5, np.nan, 0.6], [1, np.nan, 1, 1], [0, 0, 0, 0], ["elk", "owl", "ant", "yak"]),
    ],
    ids=["cost", "quality", "name", "unknown"],
)
def test_ties_go_to_the_cheaper_then_the_better_then_the_name(
    score_M: Any, cost_M: Any, quality_M: Any, expected: list[str]
) -> None:
    arrays = [np.array([values], np.float64) for values in (score_M, cost_M, quality_M)]
    everyone_QM = np.ones((1, 4), np.bool_)
    ranked_QM = rank(arrays[0], everyone_QM, arrays[1], NAMES, quality_QM=arrays[2])
    assert by_name(ranked_QM, NAMES) == [expected]


def test_ties_are_broken_without_qualities_too() -> None:
    flat_QM = np.full((2, 4), 0.5)
    ranked_QM = rank(flat_QM, np.ones((2, 4), np.bool_), flat_QM, NAMES)
    assert by_name(ranked_QM, NAMES) == [["ant", "elk", "owl", "yak"]] * 2


def test_the_order_of_names_is_the_alphabets() -> None:
    np.testing.assert_array_equal(name_order(NAMES), [2, 0, 3, 1])


@settings(max_examples=200)
@given(data=st.data(), num=st.integers(1, 12))
def test_one_query_is_ranked_alone_as_it_is_in_a_batch(data: st.DataObject, num: int) -> None:
    """The fast path for one query is the twin of the general one."""
    some = st.sampled_from([float("nan"), 0.0, 0.25, 0.5, 1.0, float("inf"), -float("inf")])
    rows = [np.array([data.draw(st.lists(some, min_size=num, max_size=num))]) for _ in range(3)]
    score_QM, cost_QM, quality_QM = rows[0], np.abs(rows[1]), rows[2]
    allowed_QM = np.array([data.draw(st.lists(st.booleans(), min_size=num, max_size=num))])
    names = tuple(data.draw(st.permutations([f"m{i}" for i in range(num)])))
    one = rank(score_QM, allowed_QM, cost_QM, names, quality_QM=quality_QM)
    both = [np.repeat(x, 2, axis=0) for x in (score_QM, allowed_QM, cost_QM, quality_QM)]
    two = rank(both[0], both[1], both[2], names, quality_QM=both[3])
    assert (one[0] == two[0]).all()


@pytest.mark.parametrize("has_quality", [False, True])
def test_the_first_places_of_a_large_pool_are_those_of_the_whole_ranking(
    has_quality: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shape, names = (12, 600), tuple(f"m{i}" for i in rng.permutation(600))
    score_QM, cost_QM, quality_QM = (
        np.where(rng.random(shape) < 0.1, np.nan, rng.integers(0, 5, shape) / 4) for _ in range(3)
    )
    score_QM[0], allowed_QM = np.nan, rng.random(shape) < 0.7
    allowed_QM[1], allowed_QM[2, 40:], allowed_QM[3] = False, False, True
    known = {"quality_QM": quality_QM} if has_quality else {}
    short_QR = rank(score_QM, allowed_QM, cost_QM, names, **known)
    monkeypatch.setattr(scoring, "FALLBACKS", 600)
    whole_QM = rank(score_QM, allowed_QM, cost_QM, names, **known)
    assert short_QR.shape == (12, 256)
    np.testing.assert_array_equal(short_QR, whole_QM[:, :256])
    assert (short_QR[1] == NONE).all()
