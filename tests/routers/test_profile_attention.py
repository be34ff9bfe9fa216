"""The layer: its gradient, its limits, and a row that never reads itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from turnout.routers.profile_attention import Attention, attention_loss, learn_attention

RNG = np.random.default_rng(0)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    point: Any = {"weight": RNG.normal(size=(4, 4)), "threshold": np.array([0.3])}
    asked: Any = (RNG.normal(size=(6, 4)), RNG.random((6, 3)), (RNG.random((6, 3)) < 0.7).astype(float))
    known_KM = np.vstack([RNG.random((5, 3)) < 0.7, np.ones((1, 3))]).astype(float)
    profile: Any = (RNG.normal(size=(5, 4)), RNG.random((6, 3)), known_KM)
    is_self_QK = np.eye(6, 5) > 0
    _, gradient = attention_loss(point, asked, profile, is_self_QK)
    for name, slope in gradient.items():
        step = RNG.normal(size=slope.shape)
        up, down = (
            attention_loss({**point, name: point[name] + sign * 1e-5 * step}, asked, profile, is_self_QK)[0]
            for sign in (1, -1)
        )
        np.testing.assert_allclose((up - down) / 2e-5, (slope * step).sum(), rtol=1e-5)


def test_reading_is_the_softmax_over_the_known_examples_and_the_mean() -> None:
    layer = Attention(RNG.normal(size=(3, 3)).astype(np.float32), np.array([0.5], np.float32))
    x_QF, x_KF = (RNG.normal(size=(num, 3)).astype(np.float32) for num in (4, 5))
    value_KM, known_KM = RNG.random((6, 2)), np.ones((6, 2))
    known_KM[1, 0] = 0.0
    key_KD = np.vstack([layer.keys(x_KF), np.zeros((1, 3), np.float32)])
    found_QM, squares_QM = layer.read(x_QF, key_KD, known_KM, value_KM)
    for q in range(4):
        logit_K = np.append((x_QF[q] @ layer.weight_FD) @ (x_KF @ layer.weight_FD).T - 0.5, 0.0)
        for m in range(2):
            share_K = np.exp(logit_K) * known_KM[:, m]
            share_K /= share_K.sum()
            np.testing.assert_allclose(found_QM[q, m], share_K @ value_KM[:, m], rtol=1e-5)
            np.testing.assert_allclose(squares_QM[q, m], np.square(share_K).sum(), rtol=1e-5)


def test_noise_teaches_nothing() -> None:
    # Every text is its own best neighbour: a layer that read the row itself would sharpen without end.
    x_NF = RNG.normal(size=(300, 6)).astype(np.float32)
    x_NF /= np.linalg.norm(x_NF, axis=1, keepdims=True)
    quality_NM = (RNG.random((300, 3)) < 0.5).astype(float)
    layer = learn_attention(x_NF, quality_NM, np.arange(300), np.random.default_rng(0))
    key_KD = np.vstack([layer.keys(x_NF), np.zeros((1, 6), np.float32)])
    value_KM, known_KM = np.vstack([quality_NM, quality_NM.mean(axis=0)]), np.ones((301, 3))
    asked_QF = RNG.normal(size=(50, 6)).astype(np.float32)
    asked_QF /= np.linalg.norm(asked_QF, axis=1, keepdims=True)
    found_QM, _ = layer.read(asked_QF, key_KD, known_KM, value_KM)
    assert np.abs(found_QM - 0.5).mean() < 0.2
