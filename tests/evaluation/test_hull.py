from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.evaluation.aiq import aiq, aiq_draws
from turnout.evaluation.hull import hull, integral, on_hull


def test_the_envelope_leaves_out_what_a_mix_or_a_cheaper_point_beats() -> None:
    cost = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    quality = np.array([0.2, 0.3, 0.6, 0.5, 0.7])
    # (2, .3) lies below the segment from (1, .2) to (3, .6), and (4, .5) is worse than (3, .6).
    assert hull(cost, quality).tolist() == [0, 2, 4]
    assert on_hull(cost, quality).tolist() == [True, False, True, False, True]


def test_of_points_at_one_cost_the_best_stands_and_equal_points_stand_once() -> None:
    assert hull(np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4])).tolist() == [1]


def test_the_integral_is_zero_before_the_curve_and_flat_after_it() -> None:
    # 0 on [0, 1), a trapezoid of (.4 + .8) / 2 * 2 on [1, 3], .8 * 2 on [3, 5].
    cost, quality = np.array([1.0, 3.0]), np.array([0.4, 0.8])
    assert integral(cost, quality, 0.0, 5.0) == pytest.approx(1.2 + 1.6)
    assert integral(cost, quality, 2.0, 4.0) == pytest.approx(0.7 + 0.8)
    assert integral(cost, quality, 4.0, 5.0) == pytest.approx(0.8)
    assert integral(cost, quality, 0.0, 1.0) == pytest.approx(0.0)


def test_aiq_by_hand() -> None:
    cost, quality = np.array([3.0, 1.0, 2.0]), np.array([0.8, 0.4, 0.5])
    # The hull is (1, .4) to (3, .8): mean 0.6 on [1, 3], then 0.8 on [3, 5].
    assert aiq(cost, quality, low_usd=1.0, high_usd=5.0) == pytest.approx((1.2 + 1.6) / 4)


def test_aiq_does_not_depend_on_what_else_is_compared_but_on_the_stated_range() -> None:
    cost, quality = np.array([1.0, 2.0]), np.array([0.5, 0.6])
    assert aiq(cost, quality, low_usd=1.0, high_usd=2.0) == pytest.approx(0.55)
    assert aiq(cost, quality, low_usd=1.0, high_usd=3.0) == pytest.approx((0.55 + 0.6) / 2)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        aiq(np.array([1.0]), np.array([0.5]), low_usd=2.0, high_usd=2.0)


POINTS = st.integers(1, 9).flatmap(
    lambda size: st.tuples(
        hnp.arrays(np.float64, size, elements=st.integers(0, 40).map(lambda k: k / 8)),
        hnp.arrays(np.float64, size, elements=st.integers(0, 40).map(lambda k: k / 40)),
    )
)


@given(POINTS)
def test_the_envelope_rises_ever_more_slowly_and_lies_above_every_point(
    points: tuple[np.ndarray, np.ndarray],
) -> None:
    cost, quality = points
    kept = hull(cost, quality)
    x, y = cost[kept], quality[kept]
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    slopes = np.diff(y) / np.diff(x)
    assert (np.diff(slopes) < 1e-12).all()
    assert (np.interp(cost, x, y) >= quality - 1e-12).all()


@given(POINTS, st.randoms())
def test_aiq_ignores_the_order_of_points_and_never_falls_when_one_is_added(
    points: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    cost, quality = points
    order = np.random.default_rng(len(cost)).permutation(len(cost))
    whole = aiq(cost, quality, low_usd=0.0, high_usd=6.0)
    assert aiq(cost[order], quality[order], low_usd=0.0, high_usd=6.0) == pytest.approx(whole)
    if len(cost) > 1:
        assert aiq(cost[1:], quality[1:], low_usd=0.0, high_usd=6.0) <= whole + 1e-12


def test_draws_are_the_same_number_one_by_one() -> None:
    rng = np.random.default_rng(0)
    cost, quality = rng.random((4, 6)), rng.random((4, 6))
    each = [aiq(c, q, low_usd=0.1, high_usd=0.9) for c, q in zip(cost, quality, strict=True)]
    assert aiq_draws(cost, quality, low_usd=0.1, high_usd=0.9).tolist() == each
