"""An estimate is five arrays of one shape, and what is not known stays NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, ShapeError, UnknownNameError
from turnout.core.estimate import Estimate, make_estimate

POOL = (Candidate(model="owl"), Candidate(model="ant"), Candidate(model="yak"))


def estimate() -> Estimate:
    quality_QM = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    return make_estimate(POOL, quality_QM, spread_QM=quality_QM / 10, cost_usd_QM=quality_QM * 2)


def test_what_is_omitted_is_unknown_or_allowed() -> None:
    made = make_estimate(POOL, np.zeros((2, 3)))
    for name in ("spread_QM", "cost_usd_QM", "latency_s_QM"):
        assert np.isnan(getattr(made, name)).all()
    assert made.allowed_QM.all()
    assert (made.num_queries, made.names) == (2, ("owl", "ant", "yak"))


def test_quality_is_clipped_and_unknown_quality_stays_unknown() -> None:
    made = make_estimate(POOL, np.array([[-0.5, np.nan, 1.5]]))
    np.testing.assert_array_equal(made.quality_QM, [[0.0, np.nan, 1.0]])


def test_a_mask_is_added_and_never_taken_away() -> None:
    first = estimate().restrict(np.array([True, False, True]))
    np.testing.assert_array_equal(first.allowed_QM, [[True, False, True]] * 2)
    second = first.restrict(np.array([[True], [False]]))
    np.testing.assert_array_equal(second.allowed_QM, [[True, False, True], [False, False, False]])


@pytest.mark.parametrize("index", [slice(1, 2), [1], np.array([False, True])])
def test_rows_are_chosen_in_every_array(index: Any) -> None:
    part = estimate().rows(index)
    np.testing.assert_array_equal(part.quality_QM, [[0.4, 0.5, 0.6]])
    np.testing.assert_array_equal(part.cost_usd_QM, [[0.8, 1.0, 1.2]])
    assert part.candidates == POOL


def test_columns_follow_their_names() -> None:
    turned = estimate().reorder(["yak", "owl"])
    assert turned.names == ("yak", "owl")
    np.testing.assert_array_equal(turned.quality_QM, [[0.3, 0.1], [0.6, 0.4]])
    np.testing.assert_array_equal(turned.spread_QM, turned.quality_QM / 10)


def test_a_name_that_is_no_column_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Estimate.reorder: candidates; got: 'yack'; did you mean 'yak'\?"
    ):
        estimate().reorder(["owl", "yack"])


@pytest.mark.parametrize("name", ["quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM", "allowed_QM"])
def test_an_array_of_another_shape_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: np.zeros((2, 2))}
    with pytest.raises(ShapeError, match=r"\(Q, M\) = \(\d, 3\); got: "):
        replace(estimate(), **wrong)


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"Estimate.allowed_QM; allowed: booleans; got: 'int64'"):
        replace(estimate(), allowed_QM=np.ones((2, 3), np.int64))


def test_names_are_those_of_the_pool_at_hand() -> None:
    # Names are remembered by the identity of the tuple, and identities are used again after a while.
    for number in range(1_000):
        pool = (Candidate(model=f"owl {number}"), Candidate(model="ant"))
        made = make_estimate(pool, np.zeros((1, 2)))
        assert made.names == made.names == (f"owl {number}", "ant")
