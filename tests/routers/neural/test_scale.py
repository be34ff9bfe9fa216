"""Lines from score to quality: drawn on held-out rows, flat where scores say nothing there."""

from __future__ import annotations

import numpy as np

from turnout.routers.means import Means, means_of
from turnout.routers.neural.scale import fit_scale, scale_from
from turnout.routers.targets import Targets


def means(quality_NM: np.ndarray) -> Means:
    nothing = np.full_like(quality_NM, np.nan)
    return means_of(Targets(quality_NM, nothing, nothing))


def seen(num: int) -> np.ndarray:
    return np.zeros(num, np.bool_)


def test_a_line_is_found_and_missing_cells_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    score_NM = rng.uniform(-1.0, 1.0, (400, 3))
    quality_NM = 0.5 + 0.25 * score_NM
    hole_NM = rng.random((400, 3)) < 0.4
    score_NM[hole_NM], quality_NM[hole_NM] = 99.0, np.nan
    scale = fit_scale(score_NM, quality_NM, means(quality_NM))
    np.testing.assert_allclose(scale.slope, 0.25, atol=1e-9)
    found_QM, spread_QM = scale.apply(np.array([[0.0, 0.4, -0.4], [9.0, 9.0, -9.0]]), seen(2))
    np.testing.assert_allclose(found_QM[0], [0.5, 0.6, 0.4], atol=0.02)
    np.testing.assert_array_equal(found_QM[1], [1.0, 1.0, 0.0])
    assert (spread_QM > 0.0).all()


def test_a_candidate_keeps_a_slope_of_its_own_as_far_as_its_rows_bear_it() -> None:
    rng = np.random.default_rng(1)
    score_NM = rng.uniform(-1.0, 1.0, (2_000, 2))
    quality_NM = 0.5 + score_NM * np.array([0.1, 0.4])
    few_NM = quality_NM.copy()
    few_NM[5:, 1] = np.nan
    np.testing.assert_allclose(
        fit_scale(score_NM, quality_NM, means(quality_NM)).slope, [0.1, 0.4], atol=0.01
    )
    # Five rows are little against thirty of the pooled slope, which is that of the first candidate.
    assert fit_scale(score_NM, few_NM, means(quality_NM)).slope[1] < 0.2


def test_scores_that_say_nothing_or_the_opposite_leave_everyone_the_mean() -> None:
    rng = np.random.default_rng(2)
    score_NM, quality_NM = rng.uniform(-1.0, 1.0, (50, 2)), rng.random((50, 2))
    for wrong_NM in (0.5 - 0.3 * score_NM, np.full((50, 2), 0.5), np.full((50, 2), np.nan)):
        scale = fit_scale(score_NM, wrong_NM, means(quality_NM))
        np.testing.assert_array_equal(scale.slope, 0.0)
        found_QM, _ = scale.apply(score_NM, seen(50))
        np.testing.assert_allclose(found_QM, np.tile(quality_NM.mean(axis=0), (50, 1)))
    none = fit_scale(score_NM[:0], quality_NM[:0], means(quality_NM))
    np.testing.assert_allclose(none.apply(score_NM, seen(50))[0][7], quality_NM.mean(axis=0))


def test_how_hard_a_query_is_does_not_bend_the_slope_of_a_comparison() -> None:
    rng = np.random.default_rng(3)
    score_NM = rng.normal(size=(300, 4))
    quality_NM = 0.5 + 0.05 * score_NM
    # Hard queries have high scores all the same: the plain slope turns, that of the differences stays.
    hard_N1 = rng.uniform(0.0, 0.4, (300, 1))
    shifted_NM, lower_NM = score_NM + 10.0 * hard_N1, quality_NM - hard_N1
    plain = fit_scale(shifted_NM, lower_NM, means(lower_NM))
    relative = fit_scale(shifted_NM, lower_NM, means(lower_NM), is_relative=True)
    np.testing.assert_array_equal(plain.slope, 0.0)
    np.testing.assert_allclose(relative.slope, 0.05, atol=1e-3)


def test_a_blank_query_has_the_mean_and_the_widest_spread() -> None:
    rng = np.random.default_rng(4)
    score_NM = rng.uniform(-1.0, 1.0, (80, 3))
    quality_NM = np.clip(0.5 + 0.3 * score_NM + 0.1 * rng.normal(size=(80, 3)), 0.0, 1.0)
    scale = fit_scale(score_NM, quality_NM, means(quality_NM))
    found_QM, spread_QM = scale.apply(np.ones((2, 3)), np.array([True, False]))
    np.testing.assert_allclose(found_QM[0], quality_NM.mean(axis=0))
    np.testing.assert_allclose(spread_QM[0], np.sqrt(means(quality_NM).variance))
    assert (spread_QM[1] < spread_QM[0]).all()


def test_lines_are_stored_and_extended() -> None:
    rng = np.random.default_rng(5)
    score_NM, quality_NM = rng.random((30, 2)), rng.random((30, 2))
    scale = fit_scale(score_NM, quality_NM, means(quality_NM))
    both = scale_from(scale.with_added(scale).arrays())
    left_QM, right_QM = (
        both.apply(np.tile(score_NM, 2), seen(30))[0][:, :2],
        scale.apply(score_NM, seen(30))[0],
    )
    np.testing.assert_array_equal(left_QM, right_QM)
    assert both.level.shape == (4,)
