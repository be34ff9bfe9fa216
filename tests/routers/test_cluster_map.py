"""The learned map of clusters: its gradient, and a planted map that k-means cannot draw."""

from __future__ import annotations

import numpy as np

from turnout.core.rng import make_rng
from turnout.routers.adam import softmax
from turnout.routers.cluster_map import learn_map, map_loss
from turnout.routers.cluster_means import average
from turnout.routers.kmeans import closest, one_hot
from turnout.routers.targets import Targets


def test_the_gradient_is_the_finite_difference() -> None:
    rng = np.random.default_rng(0)
    x_NF, vector_KM = rng.normal(size=(12, 4)), rng.random((3, 5))
    truth_NM, known_NM = rng.random((12, 5)), (rng.random((12, 5)) < 0.7).astype(np.float64)
    point = {"weight": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    slopes = map_loss(point, x_NF, truth_NM, known_NM, vector_KM)[1]
    for name, array in point.items():
        for cell in np.ndindex(array.shape):
            sides = []
            for sign in (1.0, -1.0):
                moved = array.copy()
                moved[cell] += sign * 1e-6
                sides.append(map_loss({**point, name: moved}, x_NF, truth_NM, known_NM, vector_KM)[0])
            np.testing.assert_allclose(slopes[name][cell], (sides[0] - sides[1]) / 2e-6, rtol=1e-3, atol=1e-6)


def test_a_border_that_no_centre_draws_is_learned() -> None:
    # Quality depends on the first coordinate; the centres stand apart along the second.
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(3_000, 2)).astype(np.float32)
    good_N = softmax(np.stack([6.0 * x_NF[:, 0], -6.0 * x_NF[:, 0]], axis=1))
    quality_NM = (rng.random((3_000, 2)) < good_N).astype(np.float64)
    centre_KF = np.array([[0.3, 1.0], [-0.3, -1.0]], np.float32)
    share_NK = one_hot(closest(x_NF, centre_KF), 2)
    nothing_NM = np.full_like(quality_NM, np.nan)
    means = average(share_NK, Targets(quality_NM, nothing_NM, nothing_NM), 0.0)
    point = learn_map(x_NF, quality_NM, centre_KF, means, make_rng(0, "map"))
    learned_NK = softmax(x_NF @ point["weight"] + point["bias"])
    errors = [
        float(np.square(share @ means.quality_KM[:2] - good_N).mean()) for share in (share_NK, learned_NK)
    ]
    assert errors[1] < 0.8 * errors[0]
    weight_F = point["weight"][:, 0] - point["weight"][:, 1]
    assert weight_F[0] > 2.0 * abs(weight_F[1])
