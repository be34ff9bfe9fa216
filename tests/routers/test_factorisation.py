"""Model embeddings: a table of low rank, and candidates that are predicted from those they behave like."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import FactorisationRouter, KNNRouter, RidgeRouter

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


@pytest.mark.parametrize("num_dims", [1, 3])
def test_logits_have_the_rank_of_the_model(num_dims: int) -> None:
    def rank(router: Router) -> int:
        p_QM = np.clip(router.fit(real_table()).estimate(real_table().queries).quality_QM, 1e-9, 1 - 1e-9)
        values = np.linalg.svd(np.log(p_QM / (1.0 - p_QM)), compute_uv=False)
        return int((values > 1e-5 * values[0]).sum())

    assert rank(FactorisationRouter(embedder=EMBEDDER, num_dims=num_dims)) == num_dims + 1
    assert rank(RidgeRouter(embedder=EMBEDDER)) == 9


def test_a_candidate_seen_on_one_topic_is_predicted_on_others_from_those_it_behaves_like() -> None:
    # Two kinds of candidates: good at maths and bad at stories, or the other way round. The first candidate
    # of each kind was asked about maths and code alone.
    num = 300
    good_TK = np.array([[0.9, 0.15], [0.5, 0.5], [0.1, 0.85]])
    kind_M = np.arange(10) % 2
    truth_QM = good_TK[np.arange(num) % 3][:, kind_M]
    drawn_QM = (np.random.default_rng(0).random((num, 10)) < truth_QM).astype(np.float64)
    is_story_Q = np.arange(num) % 3 == 2
    drawn_QM[np.ix_(is_story_Q, [0, 1])] = np.nan
    queries = worded_queries(num)
    table = dense_table(drawn_QM, [q.words for q in queries], tasks=[q.task for q in queries])
    stories = [query for query in worded_queries(90, seed=5) if query.task == "story"]

    def error(router: Router) -> float:
        found_QM = router.fit(table).estimate(stories).quality_QM[:, :2]
        return float(np.abs(found_QM.mean(axis=0) - good_TK[2]).max())

    assert error(FactorisationRouter(num_dims=1)) < 0.2
    # Their own rows say nothing about stories.
    assert min(error(KNNRouter()), error(RidgeRouter())) > 0.35


def test_twins_have_one_vector_and_opposites_have_opposite_ones() -> None:
    rng = np.random.default_rng(0)
    queries = worded_queries(240)
    level_Q = np.array([0.9, 0.5, 0.1])[np.arange(240) % 3]
    right = (rng.random(240) < level_Q).astype(np.float64)
    table = dense_table(np.stack([right, right, 1.0 - right], axis=1), [query.words for query in queries])
    router = FactorisationRouter(num_dims=2).fit(table)
    assert router.placement_ is not None
    one, two, other = router.placement_.vectors.mean_MD[:, :-1]
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert one @ other < -0.9 * np.linalg.norm(one) * np.linalg.norm(other)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"FactorisationRouter\.num_dims"):
        FactorisationRouter(num_dims=0)
    with pytest.raises(InputError, match=r"FactorisationRouter\.prior"):
        FactorisationRouter(prior=0.0)
