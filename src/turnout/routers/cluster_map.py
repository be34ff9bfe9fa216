"""This module learns which shares of the clusters a prompt has: the learned cluster map of UniRoute.

Source: A. Jitkrittum et al., "Universal Model Routing", arXiv 2502.08773, section 5.2:
`Phi(x) = softmax(theta phi(x))`, fitted by the log loss of `Phi(x) . Psi(m)` on the training candidates.
"""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.adam import Adam, Parameters, Real, log_loss, softmax
from turnout.routers.cluster_means import ClusterMeans
from turnout.routers.neighbours import Array

_SHARPNESS = 10.0
"""Inverse temperature of the first map, in units of squared distance: nearly one-hot."""


def learn_map(
    x_NF: Array, quality_NM: Floats, centre_KF: Array, means: ClusterMeans, rng: np.random.Generator
) -> dict[str, Array]:
    """Return `weight` of shape (F, K) and `bias` of shape (K,).

    The start is a soft version of the k-means map, `softmax(-s ||x - c||^2 / 2)`.
    """
    start = {
        "weight": (_SHARPNESS * centre_KF.T).astype(np.float32),
        "bias": (-0.5 * _SHARPNESS * np.square(centre_KF).sum(axis=1)).astype(np.float32),
    }
    known_NM = np.isfinite(quality_NM).astype(np.float32)
    truth_NM = np.nan_to_num(quality_NM).astype(np.float32)
    vector_KM = means.quality_KM[:-1].astype(np.float32)

    def loss(point: Parameters, rows: Ints) -> tuple[float, dict[str, Real]]:
        return map_loss(point, x_NF[rows], truth_NM[rows], known_NM[rows], vector_KM)

    return Adam(rate=0.05).run(start, loss, x_NF.shape[0], rng)


def map_loss(
    point: Parameters, x_NF: Real, truth_NM: Real, known_NM: Real, vector_KM: Real
) -> tuple[float, dict[str, Real]]:
    """Return the log loss of `softmax(x weight + bias) . vector`, and its gradient."""
    share_NK = softmax(x_NF @ point["weight"] + point["bias"])
    loss, slope_NM = log_loss(share_NK @ vector_KM, truth_NM, known_NM)
    pull_NK = slope_NM @ vector_KM.T
    slope_NK = share_NK * (pull_NK - (pull_NK * share_NK).sum(axis=1, keepdims=True))
    return loss, {"weight": x_NF.T @ slope_NK, "bias": slope_NK.sum(axis=0)}
