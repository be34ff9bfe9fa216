"""Clusters against brute force, on vectors that repeat, and with more clusters than vectors."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.rng import make_rng
from turnout.routers.kmeans import closest, distances, half_squares, kmeans, one_hot


def draw(num: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, 6)).astype(np.float32)


def within(x_NF: np.ndarray, centre_KF: np.ndarray) -> float:
    """Return the sum of squared distances to the nearest centre, by brute force."""
    return float(np.square(x_NF[:, None] - centre_KF[None]).sum(axis=2).min(axis=1).sum())


def test_distances_and_closest_are_brute_force() -> None:
    x_NF, centre_KF = draw(), draw(9, seed=1)
    truth_NK = np.square(x_NF[:, None] - centre_KF[None]).sum(axis=2)
    np.testing.assert_allclose(distances(x_NF, centre_KF), truth_NK, rtol=1e-4)
    np.testing.assert_array_equal(closest(x_NF, centre_KF), truth_NK.argmin(axis=1))
    np.testing.assert_array_equal(closest(x_NF, centre_KF, half_squares(centre_KF)), closest(x_NF, centre_KF))
    assert closest(x_NF[:0], centre_KF).shape == (0,)


def test_every_round_brings_the_vectors_nearer_to_their_centres() -> None:
    x_NF = draw()
    sums = [within(x_NF, kmeans(x_NF, 12, make_rng(0, "k"), rounds=rounds)) for rounds in (0, 1, 2, 5, 20)]
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > sums[-1]


def test_a_fixed_point_is_the_means_of_its_own_clusters() -> None:
    x_NF = draw()
    centre_KF = kmeans(x_NF, 7, make_rng(3, "k"), rounds=500)
    label_N = closest(x_NF, centre_KF)
    for cluster in range(7):
        np.testing.assert_allclose(centre_KF[cluster], x_NF[label_N == cluster].mean(axis=0), atol=1e-5)


def test_planted_clusters_are_found() -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(300) % 5
    x_NF = (10.0 * np.eye(5)[label_N] + rng.normal(0.0, 0.3, (300, 5))).astype(np.float32)
    found_N = closest(x_NF, kmeans(x_NF, 5, make_rng(0, "k")))
    assert len({(int(a), int(b)) for a, b in zip(label_N, found_N, strict=True)}) == 5


@pytest.mark.parametrize("num_distinct", [1, 3])
def test_there_are_no_more_centres_than_distinct_vectors(num_distinct: int) -> None:
    x_NF = np.tile(draw(num_distinct), (20, 1))
    centre_KF = kmeans(x_NF, 10, make_rng(0, "k"))
    assert centre_KF.shape == (num_distinct, 6)
    assert within(x_NF, centre_KF) < 1e-8


def test_membership_leaves_out_who_is_of_no_cluster() -> None:
    np.testing.assert_array_equal(one_hot(np.array([1, -1, 0]), 2), [[0, 1], [0, 0], [1, 0]])
