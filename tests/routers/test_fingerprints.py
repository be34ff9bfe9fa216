"""Fingerprints: against loops, from few rows, and what they do not see."""

from __future__ import annotations

import numpy as np

from turnout.routers.fingerprints import Groups, learn_groups, unit_rows

CENTRE_KF = np.eye(3, dtype=np.float32)
LEVEL_K = np.array([0.5, 0.4, 0.3])


def test_fingerprints_are_those_of_loops() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 40)
    quality_NM = rng.random((40, 4))
    quality_NM[rng.random((40, 4)) < 0.3] = np.nan
    found_MK = Groups(CENTRE_KF, LEVEL_K).fingerprints(CENTRE_KF[label_N], quality_NM)
    for m in range(4):
        known = [n for n in range(40) if np.isfinite(quality_NM[n, m])]
        above = {n: quality_NM[n, m] - LEVEL_K[label_N[n]] for n in known}
        overall = sum(above.values()) / len(above)
        standing = []
        for k in range(3):
            rows = [n for n in known if label_N[n] == k]
            standing.append((sum(above[n] for n in rows) + 5.0 * overall) / (len(rows) + 5.0))
        np.testing.assert_allclose(found_MK[m], np.array(standing) / np.linalg.norm(standing), rtol=1e-5)


def test_who_is_better_everywhere_by_the_same_and_by_half_of_it_points_the_same_way() -> None:
    x_NF = CENTRE_KF[np.arange(30) % 3]
    lead = np.array([0.2, -0.1, 0.05])[np.arange(30) % 3]
    level = LEVEL_K[np.arange(30) % 3]
    two = Groups(CENTRE_KF, LEVEL_K).fingerprints(x_NF, np.stack([level + lead, level + lead / 2], axis=1))
    np.testing.assert_allclose(two[0], two[1], atol=1e-6)


def test_rows_of_one_group_alone_say_something_of_all() -> None:
    found_1K = Groups(CENTRE_KF, LEVEL_K).fingerprints(CENTRE_KF[[0, 0]], np.array([[0.9], [0.9]]))
    assert (found_1K > 0.0).all()
    nothing_1K = Groups(CENTRE_KF, LEVEL_K).fingerprints(CENTRE_KF[[0]], np.array([[0.5]]))
    np.testing.assert_array_equal(nothing_1K, 0.0)


def test_the_level_is_the_mean_of_the_candidates_and_not_of_the_rows() -> None:
    x_NF = np.eye(2, dtype=np.float32)[np.arange(64) % 2]
    quality_NM = np.tile([[1.0, 0.0]], (64, 1))
    quality_NM[8:, 1] = np.nan
    groups = learn_groups(x_NF, quality_NM, np.random.default_rng(0))
    assert sorted(groups.level_K.tolist()) == [0.5, 0.5]
    assert learn_groups(x_NF[:1], np.array([[np.nan, 0.25]]), np.random.default_rng(0)).level_K == [0.25]


def test_a_row_of_zeros_stays() -> None:
    np.testing.assert_array_equal(unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0.0, 0.0], [0.6, 0.8]])
