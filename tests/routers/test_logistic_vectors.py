"""Scoring on known items: the maximum of the posterior, its error, and what a prior does."""

from __future__ import annotations

import numpy as np

from turnout.routers.logistic_vectors import Prior, place


def test_the_vector_is_the_maximum_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    h_ND, offset_N = rng.normal(size=(60, 3)), rng.normal(size=60)
    truth_NM = rng.random((60, 4))
    truth_NM[rng.random((60, 4)) < 0.3] = np.nan
    prior = Prior(np.array([0.2, -0.1, 0.4]), 0.7)
    found = place(h_ND, offset_N, truth_NM, prior)

    def posterior(v_D: np.ndarray, m: int) -> float:
        known = np.isfinite(truth_NM[:, m])
        z = offset_N[known] + h_ND[known] @ v_D
        log = truth_NM[known, m] * z - np.logaddexp(0.0, z)
        return float(log.sum() - 0.5 * prior.precision * np.square(v_D - prior.centre_D).sum())

    for m in range(4):
        best = posterior(found.mean_MD[m], m)
        for _ in range(50):
            assert posterior(found.mean_MD[m] + 0.02 * rng.normal(size=3), m) < best


def test_errors_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    h_ND = np.abs(rng.normal(size=(80, 2)))
    offset_N = rng.normal(size=80) - 1.0
    true_MD = rng.normal(size=(600, 2))
    p_NM = 1.0 / (1.0 + np.exp(-(offset_N[:, None] + h_ND @ true_MD.T)))
    found = place(h_ND, offset_N, (rng.random(p_NM.shape) < p_NM).astype(np.float64), Prior(np.zeros(2), 1.0))
    asked_QD = np.array([[1.0, 0.0], [0.3, 2.0]])
    guess_QM, error_QM = found.predict(asked_QD, np.zeros(2))
    truth_QM = 1.0 / (1.0 + np.exp(-asked_QD @ true_MD.T))
    inside = np.abs(guess_QM - truth_QM) < 1.96 * error_QM
    assert 0.9 < inside.mean() < 0.99


def test_without_observations_the_prior_speaks() -> None:
    found = place(np.ones((5, 2)), np.zeros(5), np.full((5, 1), np.nan), Prior(np.array([1.0, -2.0]), 4.0))
    np.testing.assert_allclose(found.mean_MD, [[1.0, -2.0]])
    np.testing.assert_allclose(found.covariance_MDD[0], np.eye(2) / 4.0)
