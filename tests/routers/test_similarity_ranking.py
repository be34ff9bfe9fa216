"""Similarity-weighted ranking: published weights, the Bradley-Terry maximum under them, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import real_table, worded_queries, worded_table
from tests.routers.test_bradley_terry import by_rounds
from turnout.core import Candidate
from turnout.core.errors import InputError
from turnout.routers import SimilarityRankingRouter
from turnout.routers.bradley_terry import all_pairs
from turnout.routers.tiers import tiers_of


@pytest.mark.parametrize("labels", ["graded", "sign"])
def test_ratings_maximise_the_likelihood_under_the_published_weights(labels: str) -> None:
    quality_QM = np.random.default_rng(0).random((40, 4))
    table, gamma, prior = worded_table(quality_QM), 10.0, 2.0
    router = SimilarityRankingRouter(gamma=gamma, prior=prior, labels=labels).fit(table)  # type: ignore[arg-type]
    assert router.embedder_ is not None
    queries = worded_queries(3, seed=7)
    x_NF, x_QF = (np.asarray(router.embedder_.embed(part), np.float64) for part in (table.queries, queries))
    first, second = all_pairs(4)
    difference_NP = quality_QM[:, first] - quality_QM[:, second]
    won_NP = 0.5 + 0.5 * (np.sign(difference_NP) if labels == "sign" else difference_NP)
    mean_P = 0.5 + 0.5 * (quality_QM.mean(axis=0)[first] - quality_QM.mean(axis=0)[second])
    for row, xi_T in enumerate(router.ratings(queries)):
        similarity_N = x_NF @ x_QF[row]
        weight_N = gamma ** (1 + similarity_N / similarity_N.max())
        # The published weight of the most similar query is gamma^2; the prior is counted in it.
        scaled = prior * gamma**2
        num_P = np.full(6, weight_N.sum() + scaled)
        truth_T = by_rounds(num_P, weight_N @ won_NP + scaled * mean_P, 4)
        np.testing.assert_allclose(xi_T, truth_T, atol=1e-4)


def test_gamma_one_ranks_all_queries_alike() -> None:
    router = SimilarityRankingRouter(gamma=1.0).fit(real_table())
    xi_QT = router.ratings(real_table().queries[:20])
    np.testing.assert_allclose(xi_QT, np.tile(xi_QT[0], (20, 1)), atol=1e-5)
    means_M = real_table().quality_QM.mean(axis=0)
    estimate = router.estimate(real_table().queries[:1])
    assert np.corrcoef(estimate.quality_QM[0], means_M)[0, 1] > 0.99
    sharp = SimilarityRankingRouter(gamma=1e4).fit(real_table()).ratings(real_table().queries[:20])
    assert sharp.std(axis=0).max() > 0.05


def test_a_win_counts_the_same_by_however_much_under_signs() -> None:
    rng = np.random.default_rng(0)
    quality_QM = np.column_stack([rng.random(60), rng.random(60)])
    # The same winners by tiny margins, with the same means as before.
    winner_Q = quality_QM[:, 0] > quality_QM[:, 1]
    narrow_QM = quality_QM.mean(axis=1, keepdims=True) + np.where(winner_Q, 1, -1)[:, None] * [0.01, -0.01]
    queries = worded_queries(6, seed=2)

    def gap(values_QM: np.ndarray, labels: str) -> np.ndarray:
        router = SimilarityRankingRouter(labels=labels, prior=1e-6).fit(worded_table(values_QM))  # type: ignore[arg-type]
        xi_QT: np.ndarray = router.ratings(queries)
        return xi_QT[:, 0] - xi_QT[:, 1]

    np.testing.assert_allclose(gap(quality_QM, "sign"), gap(narrow_QM, "sign"), atol=1e-5)
    assert np.abs(gap(narrow_QM, "graded")).max() < 0.1 < np.abs(gap(quality_QM, "sign")).max()


def test_two_candidates_differ_by_the_weighted_mean_difference() -> None:
    quality_QM = np.random.default_rng(0).random((60, 2))
    table = worded_table(quality_QM)
    router = SimilarityRankingRouter(prior=1e-9).fit(table)
    assert router.embedder_ is not None
    queries = worded_queries(6, seed=2)
    cosine_QN = router.embedder_.embed(queries) @ router.embedder_.embed(table.queries).T
    weight_QN = 10.0 ** (1 + cosine_QN / cosine_QN.max(axis=1, keepdims=True))
    expected_Q = weight_QN @ (quality_QM[:, 0] - quality_QM[:, 1]) / weight_QN.sum(axis=1)
    found_QM = router.estimate(queries).quality_QM
    np.testing.assert_allclose(found_QM[:, 0] - found_QM[:, 1], expected_Q, atol=1e-5)


def test_a_newcomer_that_copies_a_candidate_is_rated_as_it() -> None:
    rng = np.random.default_rng(0)
    quality_TM = np.array([[0.9, 0.5, 0.4], [0.2, 0.5, 0.4], [0.5, 0.5, 0.4]])
    quality_QM = quality_TM[np.arange(90) % 3] + rng.uniform(-0.05, 0.05, (90, 3))
    wide = worded_table(np.column_stack([quality_QM, quality_QM[:, 0]]))
    router = SimilarityRankingRouter(gamma=1e4, prior=1e-3).fit(worded_table(quality_QM))
    router.add_candidate(Candidate(model="m3"), wide)
    quality_QM = router.estimate(worded_queries(12, seed=4)).quality_QM
    assert (quality_QM[::3, 0] - quality_QM[1::3, 0]).min() > 0.3
    np.testing.assert_allclose(quality_QM[:, 3], quality_QM[:, 0], atol=0.05)


def test_tiers_hold_candidates_of_about_equal_quality() -> None:
    quality_M = np.array([0.1, 0.9, 0.11, np.nan, 0.5, 0.52, 0.91])
    np.testing.assert_array_equal(tiers_of(quality_M, 3), [0, 2, 0, -1, 1, 1, 2])
    np.testing.assert_array_equal(tiers_of(quality_M, 6), [0, 1, 2, -1, 3, 4, 5])
    router = SimilarityRankingRouter(num_tiers=3).fit(real_table())
    assert router.ratings(real_table().queries[:2]).shape == (2, 3)
    assert len(np.unique(router.estimate(real_table().queries[:1]).quality_QM)) > 3


def test_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="gamma"):
        SimilarityRankingRouter(gamma=0.5)
    with pytest.raises(InputError, match="prior"):
        SimilarityRankingRouter(prior=0.0)
