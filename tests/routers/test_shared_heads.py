"""Heads that share one decomposition: ridge where nothing is missing, and close to it where rows miss."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table
from turnout.checks.fixtures import LetterCounts
from turnout.routers import RidgeRouter, heads
from turnout.routers.heads import Heads, learn_heads
from turnout.routers.least_squares import solve
from turnout.routers.shared_heads import design_of, solve_shared

PENALTIES = (0.1, 1.0, 10.0, 100.0)


def draw(num: int = 160, pool: int = 300, *, hole: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, what is true of them for each head, and it with noise and holes."""
    rng = np.random.default_rng(4)
    x_NF = rng.normal(size=(num, 8))
    true_NC = 0.5 + x_NF @ (0.1 * rng.normal(size=(8, pool)))
    y_NC = true_NC + 0.3 * rng.normal(size=true_NC.shape)
    return x_NF, true_NC, np.where(rng.random(y_NC.shape) < hole, np.nan, y_NC)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_where_nothing_is_missing_they_are_ridge_regression(penalty: float) -> None:
    x_NF, _, y_NC = draw(pool=5, hole=0.0)
    shared, own = solve_shared(design_of(x_NF), y_NC, [penalty]), solve(x_NF, y_NC, [penalty])
    np.testing.assert_allclose(shared.weight_FH, own.weight_FH, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shared.intercept_H, own.intercept_H)
    # Rows are left out by their sums alone, not from the matrix: the same up to the square of the leverage.
    np.testing.assert_allclose(shared.noise_H, own.noise_H, rtol=0.05)


def test_a_row_is_left_out_as_if_it_had_not_been_summed() -> None:
    x_NF, _, y_NC = draw(num=30, pool=3)
    found = solve_shared(design_of(x_NF), y_NC, [2.0])
    away_NF = x_NF - x_NF.mean(axis=0)
    for head in range(3):
        seen = np.flatnonzero(np.isfinite(y_NC[:, head]))
        y_N, centre = y_NC[:, head], y_NC[seen, head].mean()
        gram_FF = away_NF.T @ away_NF * (seen.size / 30) + 2.0 * np.eye(8)
        for row in seen:
            rest = seen[seen != row]
            weight_F = np.linalg.solve(gram_FF, away_NF[rest].T @ (y_N[rest] - centre))
            expected = y_N[rest].mean() + away_NF[row] @ weight_F
            assert found.left_out_NH[row, head] == pytest.approx(expected, abs=1e-5)


def test_they_know_as_much_as_heads_with_a_factorisation_each(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NF, true_NC, y_NC = draw()
    fresh_NF = np.random.default_rng(5).normal(size=(200, 8)).astype(np.float32)
    weight_FC = np.linalg.lstsq(x_NF, true_NC - 0.5, rcond=None)[0]
    true_QC, none_C = 0.5 + fresh_NF @ weight_FC, np.zeros(300)

    def error() -> tuple[int, float, float]:
        groups = learn_heads(x_NF, y_NC, none_C, PENALTIES)
        value_QC, spread_QC = Heads(groups, none_C).predict(fresh_NF)
        off_QC = value_QC - true_QC
        return len(groups), float((off_QC**2).mean()), float((off_QC**2 / spread_QC**2).mean())

    num, shared, told = error()
    assert num == 1
    monkeypatch.setattr(heads, "MAX_DESIGNS", 300)
    num, own, told_own = error()
    assert num == 300
    means = float(np.mean((true_QC - np.nanmean(y_NC, axis=0)) ** 2))
    assert shared < 1.5 * own < 0.25 * means
    assert told < 1.5 * told_own


def test_a_usual_pool_keeps_a_factorisation_for_each_set_of_rows() -> None:
    x_NF, _, y_NC = draw(pool=256)
    assert len(learn_heads(x_NF, y_NC, np.zeros(256), PENALTIES)) == 256


def test_a_set_of_rows_that_many_share_keeps_its_own_among_rare_ones() -> None:
    x_NF, _, y_NC = draw(pool=320)
    y_NC[:, 300:] = np.where(np.isnan(y_NC[:, :1]), np.nan, np.nan_to_num(y_NC[:, 300:], nan=0.3))
    own, shared = learn_heads(x_NF, y_NC, np.zeros(320), PENALTIES)
    assert own.column.tolist() == [0, *range(300, 320)]
    assert shared.column.tolist() == list(range(1, 300))
    alone = learn_heads(x_NF, y_NC[:, own.column], np.zeros(21), PENALTIES)[0]
    np.testing.assert_allclose(own.weight_FH, alone.weight_FH)


def test_the_order_of_candidates_decides_nothing() -> None:
    x_NF, _, y_NC = draw()
    unit_C = np.where(np.arange(300) % 2, 0.5, 0.0)
    y_NC = np.abs(y_NC)
    order = np.random.default_rng(1).permutation(300)
    straight, turned = (
        Heads(learn_heads(x_NF, y_NC[:, at], unit_C[at], PENALTIES), unit_C[at]).predict(
            x_NF.astype(np.float32)
        )
        for at in (np.arange(300), order)
    )
    for one, other in zip(straight, turned, strict=True):
        np.testing.assert_allclose(one[:, order], other, rtol=1e-4, atol=1e-6)


def test_costs_stay_unbiased_and_the_router_stays_sane() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["sheep", "goat", "hen", "cow"], 5)) for _ in range(60)]
    cost_QM = rng.lognormal(-7.0, 1.0, (60, 300))
    hole_QM = rng.random((60, 300)) < 0.5
    quality_QM = np.where(hole_QM, np.nan, rng.random((60, 300)))
    table = dense_table(quality_QM, texts, cost_usd=np.where(hole_QM, np.nan, cost_QM))
    router = RidgeRouter(embedder=LetterCounts()).fit(table)
    assert len(router.heads_.groups) == 1
    estimate = router.estimate(table.queries)
    assert np.isfinite(estimate.quality_QM).all()
    assert (estimate.spread_QM > 0.0).all()
    seen = estimate.cost_usd_QM.mean(axis=0) / np.nanmean(np.where(hole_QM, np.nan, cost_QM), axis=0)
    assert 0.9 < np.median(seen) < 1.1
