"""Fingerprints on anchors: nothing but the anchors counts, and the published score by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, flat_length, real_table
from turnout.core import Candidate, OutcomeTable
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, ScopeRouter
from turnout.routers.scope import anchor_rows

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


def changed_off(anchors: set[str]) -> OutcomeTable:
    """Return the table with other qualities and costs on every query that is no anchor."""
    table = real_table()
    is_free_N = np.array([table.queries[row].id not in anchors for row in table.query_index])
    rng = np.random.default_rng(0)
    return OutcomeTable(
        queries=table.queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=np.where(is_free_N, rng.random(table.num_rows), table.quality), cost_usd=table.cost_usd,
    )  # fmt: skip


def test_outcomes_off_the_anchors_change_nothing() -> None:
    table = real_table()

    def quality(router: Router, data: OutcomeTable) -> np.ndarray:
        return np.asarray(router.fit(data).estimate(table.queries).quality_QM)

    router = ScopeRouter(embedder=EMBEDDER, num_anchors=40)
    before_QM = quality(router, table)
    anchors = {query.id for query in router.anchors()}
    assert 20 <= len(anchors) <= 40
    np.testing.assert_array_equal(quality(router, changed_off(anchors)), before_QM)
    for other in (KNNRouter(embedder=EMBEDDER), RidgeRouter(embedder=EMBEDDER)):
        assert np.abs(quality(other, changed_off(anchors)) - quality(other, table)).max() > 0.1


def test_a_newcomer_that_answers_the_anchors_is_known_like_an_old_candidate() -> None:
    table = flat_length(real_table())
    router = ScopeRouter(embedder=EMBEDDER, num_anchors=40).fit(table)
    asked = {query.id for query in router.anchors()}
    is_anchor_Q = np.array([query.id in asked for query in table.queries])
    part = table.where(is_anchor_Q).select(candidates=[table.candidates[2].name])
    twin = OutcomeTable(
        queries=part.queries, candidates=[Candidate(model="twin")], query_index=part.query_index,
        candidate_index=part.candidate_index, quality=part.quality, cost_usd=part.cost_usd,
    )  # fmt: skip
    router.add_candidate(twin.candidates[0], twin)
    estimate = router.estimate(table.queries)
    np.testing.assert_allclose(estimate.quality_QM[:, -1], estimate.quality_QM[:, 2], atol=1e-12)
    np.testing.assert_allclose(estimate.spread_QM[:, -1], estimate.spread_QM[:, 2], rtol=1e-9)


def test_an_estimate_mixes_the_near_anchors_with_all_of_them() -> None:
    table = real_table()
    router = ScopeRouter(embedder=EMBEDDER, num_anchors=40, k=3, share=0.25).fit(table)
    ids = [query.id for query in table.queries]
    rows = np.array([ids.index(query.id) for query in router.anchors()])
    x_AF, quality_AM = EMBEDDER.embed(router.anchors()), table.quality_QM[rows]
    found_QM = router.estimate(table.queries[:15]).quality_QM
    for row in range(15):
        near = np.argsort(-(x_AF @ EMBEDDER.embed(table.queries[row : row + 1])[0]), kind="stable")[:3]
        expected_M = 0.25 * quality_AM.mean(axis=0) + 0.75 * quality_AM[near].mean(axis=0)
        np.testing.assert_allclose(found_QM[row], expected_M, atol=1e-9)


def test_the_score_is_the_published_one() -> None:
    texts = ["sheep goat", "sheep cow", "hen duck", "hen goose"]
    quality_QM = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    table = flat_length(dense_table(quality_QM, texts, cost_usd=np.tile([1e-4, 3e-4], (4, 1))))
    router = ScopeRouter(embedder=TextEmbedder(), k=2).fit(table)
    asked, a = table.queries[:1], 0.8
    near_QM = router.estimate(asked).quality_QM
    near_QM = (near_QM - 0.3 * quality_QM.mean(axis=0)) / 0.7
    power, weight = 2.0 * (1.0 + 2.0 * (1.0 - a)), 0.3 * (0.5 + 0.5 * a)
    general_M, cost_M = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    cheap_M = (1.0 - a) * (1.0 - cost_M) ** power
    expected_QM = weight * (a * general_M + cheap_M) + (1.0 - weight) * (a * near_QM + cheap_M)
    np.testing.assert_allclose(router.score(asked, preference=a), expected_QM, atol=1e-9)
    assert router.score(asked, preference=0.0).argmax() == 0


def test_anchors_lie_where_the_prompts_are() -> None:
    rng = np.random.default_rng(0)
    x_NF = np.concatenate([rng.normal(size=(90, 2)), rng.normal(size=(90, 2)) + 20.0]).astype(np.float32)
    rows = anchor_rows(x_NF, 2, rng)
    assert (rows < 90).sum() == 1
    np.testing.assert_array_equal(anchor_rows(x_NF[:5], 9, rng), np.arange(5))


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"ScopeRouter\.share"):
        ScopeRouter(share=1.5)
    with pytest.raises(InputError, match="preference"):
        ScopeRouter().fit(real_table()).score([], preference=2.0)
