from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.deferral import area, neutral_cost, peak
from turnout.evaluation.saving import as_saving, cost_save, perf_gain

COST = np.array([4.0, 1.0, 2.0])
QUALITY = np.array([0.7, 0.3, 0.6])


def test_area_by_hand_is_under_the_points_in_order_of_cost() -> None:
    # (1, .3) (2, .6) (4, .7): .45 * 1 + .65 * 2 over a width of 3.
    assert area(COST, QUALITY, low_usd=1.0, high_usd=4.0) == pytest.approx((0.45 + 1.3) / 3)


def test_area_takes_the_best_point_that_costs_no_more() -> None:
    dented = np.array([0.5, 0.3, 0.6])
    assert area(COST, dented, low_usd=1.0, high_usd=4.0) == pytest.approx((0.45 + 1.2) / 3)


def test_area_and_peak_work_on_every_resample_at_once() -> None:
    cost, quality = np.stack([COST, COST + 1]), np.stack([QUALITY, QUALITY / 2])
    both = area(cost, quality, low_usd=1.0, high_usd=4.0)
    assert both[0] == pytest.approx(area(COST, QUALITY, low_usd=1.0, high_usd=4.0))
    assert both[1] == pytest.approx(area(COST + 1, QUALITY / 2, low_usd=1.0, high_usd=4.0))
    assert peak(quality).tolist() == [0.7, 0.35]


def test_neutral_cost_is_the_cheapest_point_that_is_good_enough() -> None:
    assert neutral_cost(COST, QUALITY, 0.6) == 2.0
    assert neutral_cost(COST, QUALITY, 0.61) == 4.0
    assert np.isinf(neutral_cost(COST, QUALITY, 0.71))


def test_mixing_reaches_the_segment_between_two_points() -> None:
    # Half of (1, .3) and half of (2, .6) is .45 at 1.5.
    assert neutral_cost(COST, QUALITY, 0.45, allow_mixing=True) == pytest.approx(1.5)
    # .65 is half way from (2, .6) to (4, .7), at 3; from (1, .3) to (4, .7) it would cost 3.625.
    assert neutral_cost(COST, QUALITY, 0.65, allow_mixing=True) == pytest.approx(3.0)
    assert np.isinf(neutral_cost(COST, QUALITY, 0.75, allow_mixing=True))


def test_cost_save_and_perf_gain_by_hand() -> None:
    assert cost_save(COST, QUALITY, single_usd=8.0, single_quality=0.6) == pytest.approx(0.75)
    assert cost_save(COST, QUALITY, single_usd=8.0, single_quality=0.9) == -np.inf
    assert perf_gain(QUALITY, single_quality=0.5) == pytest.approx(0.4)


def test_a_free_single_model_leaves_nothing_to_save() -> None:
    assert np.isnan(cost_save(COST, QUALITY, single_usd=0.0, single_quality=0.6))


def test_a_saving_says_how_often_it_is_reached_and_hides_the_end_that_is_not() -> None:
    draws = np.concatenate([np.full(10, -np.inf), np.linspace(0.2, 0.4, 90)])
    saving = as_saving(0.3, draws, 0.95)
    assert saving.reached == 0.9
    assert saving.share.low is None
    assert saving.share.high == pytest.approx(0.4, abs=0.01)
    assert str(saving) == "30% [never, 40%]"
    assert str(as_saving(-np.inf, draws, 0.95)) == "never"


def test_there_is_nothing_to_save_where_the_best_single_model_is_free() -> None:
    value = cost_save(np.zeros(2), np.array([0.5, 0.9]), single_usd=0.0, single_quality=0.9)
    assert str(as_saving(float(value), np.full(10, np.nan), 0.95)) == "free"
