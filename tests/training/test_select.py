from __future__ import annotations

import pytest

from turnout.core import Goal, InputError
from turnout.datasets import synthetic
from turnout.policies import Best
from turnout.training.select import merit, select_router


def test_a_floor_prefers_meeting_it_then_cheapness() -> None:
    goal = Goal(quality_floor=0.9)
    met_dear, met_cheap, missed = (
        merit(quality, usd, goal, 1.0, price=1.0) for quality, usd in ((0.95, 3.0), (0.91, 2.0), (0.89, 0.1))
    )
    assert met_cheap > met_dear > missed


def test_a_cap_prefers_keeping_it_then_quality() -> None:
    goal = Goal(usd_per_1k=2.0)
    good, poor, over = (
        merit(quality, usd, goal, 1.0, price=1.0)
        for quality, usd in ((0.9, 0.002), (0.8, 0.001), (1.0, 0.003))
    )
    assert good > poor > over


def test_best_quality_is_judged_at_price_zero_only() -> None:
    assert merit(0.9, 5.0, Goal(), 1.0, price=0.0) > merit(0.99, 0.0, Goal(), 1.0, price=1.0)


def test_a_price_is_quality_minus_price_times_usd() -> None:
    goal = Goal(usd_per_quality=0.01)
    assert merit(0.9, 0.002, goal, 1.0, price=7.0)[0] == pytest.approx(0.9 - 100 * 0.002)


def test_one_group_of_texts_cannot_be_cross_validated() -> None:
    table = synthetic(num_queries=20, test_share=0.0).table
    from turnout.routers import UniformRouter

    with pytest.raises(InputError, match="fewer than 2 groups"):
        select_router({"a": UniformRouter()}, table, Goal(), Best(), groups=["same"] * 20, seed=0)
    with pytest.raises(InputError, match="at least one"):
        select_router({}, table, Goal(), Best(), groups=["same"] * 20, seed=0)
