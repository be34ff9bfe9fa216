from __future__ import annotations

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.evaluation.arena import HIGH_USD_PER_1K, LOW_USD_PER_1K, arena_score, rank_score


@pytest.mark.parametrize(
    ("quality", "usd_per_1k", "score"),
    [
        (0.7969, 0.27, 0.7762),  # Paix2 on the board of 2026-08-20, shown as 77.63
        (0.80, 0.10, 0.7907),
        (0.80, 10.0, 0.684),
    ],
)
def test_published_scores(quality: float, usd_per_1k: float, score: float) -> None:
    assert float(arena_score(quality, usd_per_1k)) == pytest.approx(score, abs=1.5e-4)


def test_costs_outside_the_board_are_clamped() -> None:
    assert float(arena_score(0.5, 0.0)) == float(arena_score(0.5, 0.0044))
    assert float(arena_score(0.5, 1e4)) == 0.0
    assert float(arena_score(0.0, 1e4)) == 0.0


def test_it_works_on_arrays() -> None:
    assert arena_score(np.array([0.7969, 0.8]), np.array([0.27, 0.1])) == pytest.approx(
        [0.7762, 0.7907], abs=1e-4
    )


def test_the_rank_score_is_the_same_mean_between_other_bounds() -> None:
    # Halfway down in log cost: 1.1 * 0.8 * 0.5 / (0.08 + 0.5).
    assert float(rank_score(0.8, 0.01, low_usd=0.001, high_usd=0.1)) == pytest.approx(0.44 / 0.58)
    assert float(rank_score(0.8, 5.0, low_usd=0.001, high_usd=0.1)) == 0.0
    cheapest = float(rank_score(0.8, 0.0, low_usd=0.001, high_usd=0.1))
    assert cheapest == pytest.approx(1.1 * 0.8 / 1.08)
    same = rank_score(0.7969, 0.27e-3, low_usd=LOW_USD_PER_1K / 1e3, high_usd=HIGH_USD_PER_1K / 1e3)
    assert float(same) == pytest.approx(float(arena_score(0.7969, 0.27)))
    with pytest.raises(InputError, match="0 < low < high"):
        rank_score(0.8, 0.01, low_usd=0.0, high_usd=0.1)
