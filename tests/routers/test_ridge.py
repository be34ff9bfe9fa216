"""Ridge: the leave-one-out identity, limits that are known, unbiased costs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import (
    dense_table,
    flat_length,
    holed_table,
    plain_means,
    real_table,
)
from turnout.core.errors import InputError
from turnout.core.query import Query
from turnout.features import TextEmbedder
from turnout.routers import RidgeRouter
from turnout.routers.heads import Heads, Scale, learn_heads, pool
from turnout.routers.least_squares import solve


def plain_ridge(x_NF: np.ndarray, y_N: np.ndarray, penalty: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Return weights, intercept and centre from the normal equations, without any shortcut."""
    centre = x_NF.mean(axis=0)
    x = x_NF - centre
    gram = x.T @ x + penalty * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ (y_N - y_N.mean())), float(y_N.mean()), centre


def test_the_solution_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x_NF, y_NH = rng.normal(size=(25, 6)), rng.normal(size=(25, 2))
    found = solve(x_NF, y_NH, (0.7,))
    for head in range(2):
        weight, intercept, centre = plain_ridge(x_NF, y_NH[:, head], 0.7)
        np.testing.assert_allclose(found.weight_FH[:, head], weight)
        assert found.intercept_H[head] == pytest.approx(intercept)
        np.testing.assert_allclose(found.centre_F, centre)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 50.0])
def test_fast_leave_one_out_equals_leaving_out_one_by_one(penalty: float) -> None:
    rng = np.random.default_rng(1)
    x_NF, y_NH = rng.normal(size=(15, 4)), rng.normal(size=(15, 1))
    left_out = []
    for row in range(15):
        others = np.arange(15) != row
        weight, intercept, centre = plain_ridge(x_NF[others], y_NH[others, 0], penalty)
        left_out.append((x_NF[row] - centre) @ weight + intercept)
    found = solve(x_NF, y_NH, (penalty,))
    np.testing.assert_allclose(found.left_out_NH[:, 0], left_out)
    # One best and one worst outcome more, each a half from the middle.
    assert found.noise_H[0] == pytest.approx((np.sum((y_NH[:, 0] - left_out) ** 2) + 0.5) / 17)


def test_each_head_takes_the_penalty_of_least_error() -> None:
    rng = np.random.default_rng(2)
    x_NF = rng.normal(size=(60, 5))
    y_NH = np.stack([x_NF @ np.arange(5.0), *rng.normal(size=(5, 60))], axis=1)
    found = solve(x_NF, y_NH, (1e-3, 1e4))
    alone = [solve(x_NF, y_NH, (penalty,)) for penalty in (1e-3, 1e4)]
    best_H = np.argmin([one.noise_H for one in alone], axis=0)
    np.testing.assert_array_equal(found.penalty_H, np.array([1e-3, 1e4])[best_H])
    assert found.penalty_H[0] == 1e-3
    assert 1e4 in found.penalty_H
    for head, best in enumerate(best_H):
        np.testing.assert_allclose(found.left_out_NH[:, head], alone[best].left_out_NH[:, head])


def test_an_infinite_penalty_is_the_mean() -> None:
    table = flat_length(holed_table())
    estimate = RidgeRouter(penalties=(1e15,)).fit(table).estimate(table.queries[:9])
    mean = plain_means(table, 9)
    np.testing.assert_allclose(estimate.quality_QM, mean.quality_QM, atol=1e-9)
    # Not to the last digit: costs are scaled by their leave-one-out mean, which is not quite the mean.
    np.testing.assert_allclose(estimate.cost_usd_QM, mean.cost_usd_QM, rtol=1e-4)
    assert (estimate.spread_QM > 0.98 * mean.spread_QM).all()


def test_spread_is_noise_times_leverage() -> None:
    rng = np.random.default_rng(3)
    x_NF, y_NC = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
    groups = learn_heads(x_NF, y_NC, np.zeros(1), (2.0,))
    x_QF = rng.normal(size=(4, 3))
    _, error_QC = Heads(groups, np.zeros(1)).predict(x_QF)
    centred = x_NF - x_NF.mean(axis=0)
    inverse = np.linalg.inv(centred.T @ centred + 2.0 * np.eye(3))
    away = x_QF - x_NF.mean(axis=0)
    leverage = 1 / 40 + np.einsum("qf,fg,qg->q", away, inverse, away)
    np.testing.assert_allclose(error_QC[:, 0], np.sqrt(groups[0].noise_H[0] * leverage))


def test_a_missing_cell_counts_for_nobody() -> None:
    table = real_table()
    gone = (table.candidate_index == 2) & (table.query_index % 2 == 0)
    embedder = TextEmbedder(num_features=16).fit(table.queries)
    full = RidgeRouter(embedder=embedder, is_pooled=False).fit(table).estimate(table.queries)
    holed = (
        RidgeRouter(embedder=embedder, is_pooled=False).fit(table.with_rows(~gone)).estimate(table.queries)
    )
    others = [j for j in range(9) if j != 2]
    np.testing.assert_allclose(full.quality_QM[:, others], holed.quality_QM[:, others], atol=1e-6)
    # The head of the holed candidate is that of a table that never had those rows.
    alone = table.select(candidates=[table.names[2]]).where(np.arange(len(table.queries)) % 2 == 1)
    expected = RidgeRouter(embedder=embedder).fit(alone).estimate(table.queries)
    np.testing.assert_allclose(holed.quality_QM[:, 2], expected.quality_QM[:, 0], atol=1e-6)
    assert holed.spread_QM[:, 2].mean() > full.spread_QM[:, 2].mean()


def test_pooled_heads_are_the_sum_of_two_regressions() -> None:
    rng = np.random.default_rng(6)
    x_NF, y_NH = rng.normal(size=(40, 3)), rng.normal(size=(40, 4))
    is_pooled = np.array([True, True, True, False])
    found = pool(x_NF, y_NH, (0.5, 5.0, 50.0), is_pooled)
    common = y_NH[:, :3].mean(axis=1, keepdims=True)
    parts = [solve(x_NF, y, (0.5, 5.0, 50.0)) for y in (common, y_NH[:, :3] - common, y_NH[:, 3:])]
    np.testing.assert_allclose(found.weight_FH[:, :3], parts[0].weight_FH + parts[1].weight_FH)
    np.testing.assert_allclose(found.left_out_NH[:, :3], parts[0].left_out_NH + parts[1].left_out_NH)
    np.testing.assert_allclose(found.weight_FH[:, 3:], parts[2].weight_FH)
    squares_H = ((y_NH - found.left_out_NH) ** 2).sum(axis=0)
    np.testing.assert_allclose(found.noise_H, (squares_H + 0.5) / (len(y_NH) + 2.0))
    # At one penalty for both parts the sum is the plain regression.
    plain, same = solve(x_NF, y_NH, (2.0,)), pool(x_NF, y_NH, (2.0,), is_pooled)
    np.testing.assert_allclose(same.weight_FH, plain.weight_FH)


def test_heads_seen_on_the_same_rows_share_one_factorisation() -> None:
    assert len(RidgeRouter().fit(real_table()).heads_.groups) == 1


def test_expected_costs_are_unbiased_and_never_negative() -> None:
    rng = np.random.default_rng(4)
    words = np.array("sum poem code proof".split())
    pick = rng.integers(0, 4, 300)
    texts = [f"{words[i]} {' '.join(rng.choice(list('abcdefgh'), 3))}" for i in pick]
    # Heavy-tailed costs, where the mean of the log is far below the log of the mean.
    cost_QM = np.exp(rng.normal(size=(300, 2)) + 2.0 * pick[:, None]) * 1e-4
    table = dense_table(rng.random((300, 2)), texts, cost_usd=cost_QM)
    estimate = RidgeRouter().fit(table).estimate(table.queries)
    assert (estimate.cost_usd_QM >= 0).all()
    np.testing.assert_allclose(estimate.cost_usd_QM.mean(axis=0), cost_QM.mean(axis=0), rtol=0.1)
    dear, cheap = estimate.cost_usd_QM[pick == 3].mean(), estimate.cost_usd_QM[pick == 0].mean()
    assert dear > 5 * cheap


def test_a_free_candidate_stays_free() -> None:
    table = dense_table(np.ones((8, 1)), [f"t {i}" for i in range(8)], cost_usd=np.zeros((8, 1)))
    assert (RidgeRouter().fit(table).estimate(table.queries).cost_usd_QM == 0).all()


def test_a_scale_is_undone() -> None:
    scale = Scale(np.array([0.0, 2.0]))
    y_NC = np.array([[0.3, 0.5], [-0.1, 7.0]])
    np.testing.assert_allclose(scale.back(scale.forward(y_NC)), y_NC)


def test_a_blank_query_gets_the_mean() -> None:
    table = real_table()
    blank = RidgeRouter().fit(table).estimate([Query(id="x", text=None)])
    np.testing.assert_allclose(blank.quality_QM[0], table.quality_QM.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("penalties", [(), (0.0,), (-1.0,), (float("nan"),)])
def test_penalties_are_above_zero(penalties: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"RidgeRouter\.penalties"):
        RidgeRouter(penalties=penalties)
