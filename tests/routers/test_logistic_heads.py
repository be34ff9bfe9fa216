"""Logistic regressions side by side: each at the minimum of its own loss, with honest errors."""

from __future__ import annotations

import numpy as np

from turnout.routers.logistic_heads import fit_logistic


def test_every_head_is_at_the_minimum_of_its_own_loss() -> None:
    rng = np.random.default_rng(0)
    x_NF, target_NC = rng.normal(size=(80, 4)), rng.random((80, 3))
    target_NC[rng.random((80, 3)) < 0.3] = np.nan
    heads = fit_logistic(x_NF, target_NC, 2.0)
    for c in range(3):
        known = np.isfinite(target_NC[:, c])
        p_N = heads.predict(x_NF)[0][:, c]
        left_N = (p_N - target_NC[:, c])[known]
        away_NF = (x_NF - heads.centre_F)[known]
        np.testing.assert_allclose(away_NF.T @ left_N + 2.0 * heads.weight_FC[:, c], 0.0, atol=1e-3)
        assert abs(left_N.sum()) < 1e-2


def test_errors_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    weight_FC = 0.7 * rng.normal(size=(3, 40))
    x_NF, asked_QF = rng.normal(size=(400, 3)), rng.normal(size=(50, 3))
    p_NC, p_QC = (1.0 / (1.0 + np.exp(-(x @ weight_FC))) for x in (x_NF, asked_QF))
    heads = fit_logistic(x_NF, (rng.random(p_NC.shape) < p_NC).astype(float), 1.0)
    found_QC, variance_QC = heads.predict(asked_QF)
    inside = np.abs(found_QC - p_QC) < 1.96 * np.sqrt(variance_QC)
    assert inside.mean() > 0.85
