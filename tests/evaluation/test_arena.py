from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.arena import arena_score


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
