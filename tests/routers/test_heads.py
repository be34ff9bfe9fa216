"""Heads against the formulas written out, with blank queries and columns in any order."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.routers.heads import Heads, learn_heads

UNIT_C = np.array([0.0, 2.0, 0.0, 0.5, 1.0])


def draw(*, is_holed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return designs, targets (one column never observed; others on rows of their own) and queries."""
    rng = np.random.default_rng(5)
    x_NF, y_NC = rng.normal(size=(30, 4)), rng.random((30, 5))
    if is_holed:
        y_NC[::3, [0, 3]] = np.nan
        y_NC[:, 4] = np.nan
    x_QF = rng.normal(size=(6, 4))
    x_QF[1, 2] = 0.0
    x_QF[4] = 0.0
    return x_NF, y_NC, x_QF


@pytest.mark.parametrize("is_holed", [False, True])
def test_predictions_are_the_formulas_written_out(is_holed: bool) -> None:
    x_NF, y_NC, x_QF = draw(is_holed=is_holed)
    groups = learn_heads(x_NF, y_NC, UNIT_C, (0.5, 5.0), num_pooled=2)
    assert len(groups) == 1 + is_holed
    value_QC, error_QC = Heads(groups, UNIT_C).predict(x_QF)
    expected_QC, deviation_QC = np.full((6, 5), np.nan), np.full((6, 5), np.inf)
    for group in groups:
        # A blank query stands where the mean of the design does.
        away_QF = np.where(x_QF.any(axis=1, keepdims=True), x_QF - group.centre_F, 0.0)
        for head, column in enumerate(group.column):
            guess_Q = away_QF @ group.weight_FH[:, head] + group.intercept_H[head]
            if UNIT_C[column] > 0:
                guess_Q = UNIT_C[column] * np.expm1(np.clip(guess_Q, 0.0, 50.0))
            expected_QC[:, column] = guess_Q * group.factor_H[head]
            share_F = 1.0 / (group.values_F + group.penalty_H[head])
            leverage_Q = (away_QF @ group.axes_FF) ** 2 @ share_F + 1.0 / group.num_rows
            deviation_QC[:, column] = np.sqrt(group.noise_H[head] * leverage_Q)
    # The heads are kept in single precision, the formulas are written out in double.
    np.testing.assert_allclose(value_QC, expected_QC, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(error_QC, deviation_QC, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("is_holed", [False, True])
def test_one_query_is_read_as_in_a_batch(is_holed: bool) -> None:
    x_NF, y_NC, x_QF = draw(is_holed=is_holed)
    heads = Heads(learn_heads(x_NF, y_NC, UNIT_C, (0.5,)), UNIT_C)
    together = heads.predict(x_QF)
    for row in range(6):
        for whole, alone in zip(together, heads.predict(x_QF[row : row + 1]), strict=True):
            np.testing.assert_allclose(alone[0], whole[row], rtol=1e-12, atol=1e-14)


def test_queries_are_not_changed() -> None:
    x_NF, y_NC, x_QF = draw(is_holed=False)
    before = x_QF.copy()
    Heads(learn_heads(x_NF, y_NC, UNIT_C, (0.5,)), UNIT_C).predict(x_QF)
    np.testing.assert_array_equal(x_QF, before)
