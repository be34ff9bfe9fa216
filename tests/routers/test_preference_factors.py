"""Factors of preference: only who is better counts, and probabilities of winning are the planted ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import Candidate
from turnout.core.errors import InputError, UnknownNameError
from turnout.features import TextEmbedder
from turnout.routers import FactorisationRouter, KNNRouter, PreferenceFactorsRouter, RidgeRouter
from turnout.routers.logistic_heads import fit_logistic

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


def test_what_is_added_to_everybody_on_a_query_moves_no_score() -> None:
    rng = np.random.default_rng(0)
    quality_QM = rng.uniform(0.3, 0.6, (150, 4))
    level_Q1 = rng.uniform(-0.3, 0.4, (150, 1))
    plain, moved = worded_table(quality_QM), worded_table(quality_QM + level_Q1)
    asked = worded_queries(12, seed=7)
    one, two = (PreferenceFactorsRouter(num_dims=2).fit(table).scores(asked) for table in (plain, moved))
    np.testing.assert_allclose(one, two, atol=2e-3)

    def gaps(router: Any, table: Any) -> np.ndarray:
        found_QM: np.ndarray = router.fit(table).estimate(asked).quality_QM
        return np.asarray(found_QM - found_QM.mean(axis=1, keepdims=True))

    one, two = (gaps(PreferenceFactorsRouter(num_dims=2), table) for table in (plain, moved))
    np.testing.assert_allclose(one, two, atol=2e-3)
    for cls in (KNNRouter, FactorisationRouter):
        assert np.abs(gaps(cls(), plain) - gaps(cls(), moved)).max() > 5e-3, cls.__name__


def test_a_win_counts_the_same_by_however_much_under_signs() -> None:
    rng = np.random.default_rng(0)
    quality_QM = rng.random((120, 3))
    rank_QM = quality_QM.argsort(axis=1).argsort(axis=1)
    asked = worded_queries(6, seed=2)

    def scores(values_QM: np.ndarray, labels: Any) -> np.ndarray:
        router = PreferenceFactorsRouter(num_dims=2, labels=labels).fit(worded_table(values_QM))
        return np.asarray(router.scores(asked))

    narrow_QM = 0.5 + 0.01 * rank_QM
    np.testing.assert_allclose(scores(quality_QM, "sign"), scores(narrow_QM, "sign"), atol=1e-6)
    wide, tight = (
        PreferenceFactorsRouter(num_dims=2, labels="sign").fit(worded_table(v)).estimate(asked).quality_QM
        for v in (0.25 + 0.5 * quality_QM, 0.5 + 0.01 * (rank_QM - 1))
    )
    gaps, narrow_gaps = (found - found.mean(axis=1, keepdims=True) for found in (wide, tight))
    np.testing.assert_allclose(gaps, narrow_gaps, atol=0.03)  # but for what is cut at 0 and 1
    # A regression on qualities hears of the margins.
    wide, tight = (
        RidgeRouter().fit(worded_table(v)).estimate(asked).quality_QM for v in (quality_QM, narrow_QM)
    )
    assert np.abs(wide - tight).max() > 0.02
    assert np.abs(scores(narrow_QM, "graded")).max() < 0.3 * np.abs(scores(narrow_QM, "sign")).max()


def test_between_two_candidates_it_is_a_classifier_of_who_wins() -> None:
    """RouteLLM's text classifier on preferences: one linear score, here beside a logistic regression."""
    rng = np.random.default_rng(3)
    table = real_table()
    x_NF = np.asarray(EMBEDDER.embed(table.queries), np.float64)
    strong_N1 = 1.0 / (1.0 + np.exp(-8.0 * (x_NF @ rng.normal(size=(x_NF.shape[1], 1)))))
    won_N1 = (rng.random(strong_N1.shape) < strong_N1).astype(float)
    # By how much somebody wins says nothing.
    margin_N1 = rng.uniform(0.05, 0.5, won_N1.shape) * (2.0 * won_N1 - 1.0)
    quality_QM = np.concatenate([0.5 + margin_N1, np.full(won_N1.shape, 0.5)], axis=1)
    texts = [query.words for query in table.queries]
    router = PreferenceFactorsRouter(embedder=EMBEDDER, labels="sign").fit(dense_table(quality_QM, texts))
    score_QM = router.scores(table.queries)
    p_Q = 1.0 / (1.0 + np.exp(score_QM[:, 1] - score_QM[:, 0]))
    classified_Q = fit_logistic(x_NF, won_N1, penalty=0.3).predict(x_NF)[0][:, 0]
    assert np.corrcoef(p_Q, classified_Q)[0, 1] > 0.97
    assert np.abs(p_Q - classified_Q).mean() < 0.08
    assert ((p_Q > 0.5) == (strong_N1[:, 0] > 0.5)).mean() > 0.8


@pytest.mark.parametrize("num", [3, 30])
def test_planted_preferences_are_recovered(num: int) -> None:
    strength_TM = np.random.default_rng(1).normal(size=(3, num))
    p_TMM = 1.0 / (1.0 + np.exp(-(strength_TM[:, :, None] - strength_TM[:, None, :])))
    # Graded qualities whose expected differences are 2 P - 1 on average over opponents.
    quality_TM = 0.5 + 0.5 * (2.0 * p_TMM - 1.0).mean(axis=2)
    rng = np.random.default_rng(0)
    quality_QM = quality_TM[np.arange(300) % 3] + rng.uniform(-0.1, 0.1, (300, num))
    table = worded_table(np.clip(quality_QM, 0.0, 1.0))
    router = PreferenceFactorsRouter().fit(table)
    asked = worded_queries(30, seed=5)
    estimate = router.estimate(asked)
    order = [int(name[1:]) for name in estimate.names]
    truth_QM = quality_TM[np.arange(30) % 3][:, order]
    assert np.sqrt(np.mean((estimate.quality_QM - truth_QM) ** 2)) < 0.08
    chosen_Q = truth_QM[np.arange(30), estimate.quality_QM.argmax(axis=1)]
    assert (truth_QM.max(axis=1) - chosen_Q).mean() < 0.02


def test_a_newcomer_is_placed_against_what_is_expected_of_the_others() -> None:
    table = real_table()
    others = list(table.names[:-1])
    router = PreferenceFactorsRouter(embedder=EMBEDDER).fit(table.select(candidates=others))
    probe = table.where(np.arange(len(table.queries)) % 3 == 0)
    router.add_candidate(table.candidates[-1], probe)
    found_Q, truth_Q = router.estimate(table.queries).quality_QM[:, -1], table.quality_QM[:, -1]
    assert abs(found_Q.mean() - truth_Q.mean()) < 0.08
    assert np.corrcoef(found_Q, truth_Q)[0, 1] > 0.3


def test_one_candidate_has_nobody_to_beat() -> None:
    texts = [query.words for query in worded_queries(30)]
    router = PreferenceFactorsRouter().fit(dense_table(np.full((30, 1), 0.7), texts))
    np.testing.assert_allclose(router.estimate(worded_queries(3)).quality_QM, 0.7, atol=0.01)
    probe = dense_table(np.full((9, 1), 0.9), texts[:9])
    newcomer = Candidate(model="other")
    named = type(probe)(
        queries=probe.queries, candidates=[newcomer], query_index=probe.query_index,
        candidate_index=probe.candidate_index, quality=probe.quality,
    )  # fmt: skip
    router.add_candidate(newcomer, named)
    assert (np.diff(router.estimate(worded_queries(3)).quality_QM, axis=1) > 0.05).all()


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match=r"PreferenceFactorsRouter\.labels"):
        PreferenceFactorsRouter(labels="loud")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"PreferenceFactorsRouter\.num_dims"):
        PreferenceFactorsRouter(num_dims=0)
