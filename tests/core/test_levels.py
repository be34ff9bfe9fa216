"""How hard queries were counts out of a mean: planted orders, and the normal equations written out."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.levels import adjusted_means, drawn_means

NAN = float("nan")


def written_out(quality_QM: np.ndarray, tasks: list[str] | None) -> np.ndarray:
    """Return the same from one system over levels, tasks and values."""
    known_QM = np.isfinite(quality_QM)
    num, pool = quality_QM.shape
    names = sorted(set(tasks or []))
    groups = len(names) if len(names) > 1 else 0
    row_N, column_N = np.nonzero(known_QM)
    size, rows = num + groups + pool, np.arange(row_N.size)
    design_NP = np.zeros((row_N.size, size))
    design_NP[rows, row_N] = design_NP[rows, num + groups + column_N] = 1.0
    group_Q = np.array([names.index(task) for task in tasks or []])
    if groups:
        design_NP[rows, num + group_Q[row_N]] = 1.0
    centre = np.nanmean(quality_QM)
    gram_PP = design_NP.T @ design_NP + np.diag([1e-3] * num + [1e-6] * groups + [0.0] * pool)
    found_P = np.linalg.solve(gram_PP, design_NP.T @ (quality_QM[known_QM] - centre))
    level_Q = found_P[:num] + (found_P[num : num + groups][group_Q] if groups else 0.0)
    return found_P[num + groups :] + level_Q.mean() + centre


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)], ids=["few candidates", "many"])
@pytest.mark.parametrize("num_tasks", [1, 4])
def test_they_are_the_normal_equations_written_out(shape: tuple[int, int], num_tasks: int) -> None:
    rng = np.random.default_rng(2)
    quality_QM = np.where(rng.random(shape) < 0.4, rng.random(shape), NAN)
    quality_QM[0], quality_QM[:, 0] = rng.random(shape[1]), rng.random(shape[0])
    tasks = [f"t{i % num_tasks}" for i in range(shape[0])]
    found_M = adjusted_means(quality_QM, tasks)
    np.testing.assert_allclose(found_M, written_out(quality_QM, tasks), atol=1e-7)


def test_the_order_of_candidates_that_saw_other_queries_is_recovered() -> None:
    rng = np.random.default_rng(0)
    level_Q1, value_M = 0.8 * rng.random((400, 1)), np.array([0.2, 0.05, 0.1, 0.0])
    quality_QM = level_Q1 + value_M
    # The worst candidate was asked the easy queries, the best the hard ones.
    asked_QM = rng.random((400, 4)) < np.where(level_Q1 > 0.4, [[0.5, 0.5, 0.5, 0.9]], [[0.9, 0.5, 0.5, 0.1]])
    sparse_QM = np.where(asked_QM, quality_QM, NAN)
    assert np.nanmean(sparse_QM, axis=0).argmax() == 3
    np.testing.assert_allclose(adjusted_means(sparse_QM), quality_QM.mean(axis=0), atol=0.02)


def test_where_each_query_met_one_candidate_tasks_are_compared() -> None:
    rng = np.random.default_rng(1)
    tasks = ["easy" if i % 2 else "hard" for i in range(2_000)]
    level_Q = np.array([0.7 if task == "easy" else 0.1 for task in tasks])
    # Four of five easy queries went to the weak one, four of five hard ones to the strong one.
    is_weak_Q = rng.random(2_000) < np.where(level_Q > 0.5, 0.8, 0.2)
    quality_Q = level_Q + np.where(is_weak_Q, 0.0, 0.15) + 0.02 * rng.normal(size=2_000)
    quality_QM = np.where(np.stack([is_weak_Q, ~is_weak_Q], axis=1), quality_Q[:, None], NAN)
    assert np.nanmean(quality_QM, axis=0).argmax() == 0
    np.testing.assert_allclose(adjusted_means(quality_QM, tasks), [0.4, 0.55], atol=0.01)
    np.testing.assert_allclose(adjusted_means(quality_QM), np.nanmean(quality_QM, axis=0), atol=0.01)


def test_where_no_query_is_shared_the_means_are_compared() -> None:
    found_M = adjusted_means(np.array([[0.9, NAN], [0.7, NAN], [NAN, 0.6], [NAN, 0.4]]))
    assert found_M[0] - found_M[1] == pytest.approx(0.3, abs=1e-6)


def test_a_dense_table_keeps_its_means_and_a_stranger_is_unknown() -> None:
    quality_QM = np.random.default_rng(3).random((9, 4))
    np.testing.assert_array_equal(adjusted_means(quality_QM), quality_QM.mean(axis=0))
    quality_QM[:, 2] = NAN
    found_M = adjusted_means(quality_QM, ["a", "b", "c"] * 3)
    assert np.isnan(found_M[2])
    quality_QM = np.vstack([quality_QM, np.full((2, 4), NAN)])  # queries of which nobody was graded
    np.testing.assert_array_equal(found_M[[0, 1, 3]], quality_QM[:9, [0, 1, 3]].mean(axis=0))
    np.testing.assert_array_equal(adjusted_means(quality_QM), found_M)
    assert np.isnan(adjusted_means(np.full((2, 2), NAN))).all()


def test_drawn_means_are_nearer_to_the_truth_and_their_leader_is_better() -> None:
    rng = np.random.default_rng(4)
    raw, drawn, leads = [], [], []
    for _ in range(40):
        truth_M, num_M = 0.6 + 0.05 * rng.standard_normal(500), rng.integers(10, 60, 500).astype(float)
        mean_M = rng.binomial(num_M.astype(int), truth_M) / num_M
        found_M = drawn_means(mean_M, num_M, 0.24)
        raw.append(((mean_M - truth_M) ** 2).mean())
        drawn.append(((found_M - truth_M) ** 2).mean())
        leads.append(truth_M[found_M.argmax()] - truth_M[mean_M.argmax()])
    # The least error that can be had, when all is known: 1 / (1 / 0.05^2 + n / 0.24), on average.
    assert np.mean(drawn) < 1.05 * np.mean(1.0 / (400.0 + np.arange(10, 60) / 0.24)) < 0.3 * np.mean(raw)
    assert np.mean(leads) > 0.04


def test_drawn_means_of_equal_counts_keep_their_order_and_strangers_stay_unknown() -> None:
    mean_M = np.array([0.2, NAN, 0.9, 0.5])
    found_M = drawn_means(mean_M, np.array([9.0, 0.0, 9.0, 9.0]), 0.2)
    assert np.isnan(found_M[1])
    assert found_M[[0, 3, 2]].tolist() == sorted(found_M[[0, 3, 2]])
    assert 0.2 < found_M[0] < found_M[2] < 0.9
    sure_M = drawn_means(mean_M, np.array([9e6, 0.0, 9e6, 9e6]), 0.2)
    np.testing.assert_allclose(sure_M, mean_M, atol=1e-6)
    assert drawn_means(mean_M[:2], np.array([3.0, 0.0]), 0.2)[0] == 0.2  # alone there is nothing to go by
