"""Scores by tag: they add up, are read off the rows with the tag, and are never seen by their own row."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries
from turnout.core import Query
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.routers import KNNRouter, RidgeRouter, TagRouter

TAGS = ["algebra", "poetry", "sorting", "history", "physics", "grammar"]


def tagged(num: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return texts of two or three tags, and the planted sums of their effects on two candidates."""
    rng = np.random.default_rng(seed)
    effect_TM = np.array([[0.2, -0.2], [-0.1, 0.15], [0.15, -0.1], [-0.2, 0.1], [0.05, 0.0], [0.0, 0.1]])
    picked = [rng.choice(6, rng.integers(2, 4), replace=False) for _ in range(num)]
    texts = [" ".join(TAGS[tag] for tag in tags) for tags in picked]
    return texts, np.array([effect_TM[tags].sum(axis=0) for tags in picked])


def test_what_tags_give_adds_up() -> None:
    texts, effect_QM = tagged(200, seed=0)
    asked = [
        Query(id=str(i), text=text)
        for i, text in enumerate(["", "amber", "bronze", "copper", "amber bronze copper"])
    ]
    rare = [
        f"{text} {word}"
        for text, word in zip(texts, ["amber", "bronze", "copper", "x", "y"] * 40, strict=True)
    ]
    table = dense_table(np.clip(0.5 + effect_QM, 0.0, 1.0), rare)

    def parts(router: Router) -> np.ndarray:
        quality_QM = router.fit(table).estimate(asked).quality_QM
        return np.asarray(quality_QM[4] - quality_QM[0] - (quality_QM[1:4] - quality_QM[0]).sum(axis=0))

    router = TagRouter()
    np.testing.assert_allclose(parts(router), 0.0, atol=1e-12)
    assert router.tags(asked)[4] == ["amber", "bronze", "copper"]
    for other in (KNNRouter(), RidgeRouter()):
        assert np.abs(parts(other)).max() > 1e-4


def test_a_score_is_the_shrunk_mean_over_the_rows_with_the_tag() -> None:
    table = real_table()
    router = TagRouter(prior=4.0, least=5).fit(table)
    away_QM = table.quality_QM - table.quality_QM.mean(axis=0)
    for tag in list(router.number_)[::25]:
        rows = [i for i, words in enumerate(router.tags(table.queries)) if tag in words]
        expected_M = away_QM[rows].sum(axis=0) / (len(rows) + 4.0)
        np.testing.assert_allclose(router.score_TM[router.number_[tag]], expected_M, atol=1e-12)


def test_no_row_sees_its_own_outcome() -> None:
    # Every text is unlike the others and qualities are noise: with its own row in a tag's score, the factor
    # would say that tags tell much.
    rng = np.random.default_rng(0)
    words = [f"word{'abcdefghij'[a]}{'abcdefghij'[b]}" for a in range(10) for b in range(10)]
    texts = [" ".join(rng.choice(words, 6, replace=False)) for _ in range(300)]
    router = TagRouter(prior=1.0).fit(dense_table((rng.random((300, 4)) < 0.5).astype(float), texts))
    assert len(router.number_) > 90
    assert router.factor_ < 0.1


def test_planted_topics_are_found_and_a_newcomer_needs_its_own_scores_alone() -> None:
    queries = worded_queries(240)
    good_TM = np.array([[0.9, 0.2, 0.5], [0.5, 0.5, 0.2], [0.1, 0.8, 0.9]])
    quality_QM = (np.random.default_rng(0).random((240, 3)) < good_TM[np.arange(240) % 3]).astype(float)
    table = dense_table(quality_QM, [query.words for query in queries])
    asked = worded_queries(30, seed=4)
    whole = TagRouter().fit(table).estimate(asked)
    assert (whole.quality_QM.argmax(axis=1) == good_TM[np.arange(30) % 3].argmax(axis=1))[::3].all()
    router = TagRouter().fit(table.select(candidates=["m0", "m1"]))
    factor = router.factor_
    router.add_candidate(table.candidates[2], table)
    assert router.factor_ == factor
    late_Q, early_Q = router.estimate(asked).quality_QM[:, 2], whole.quality_QM[:, 2]
    assert np.corrcoef(late_Q, early_Q)[0, 1] > 0.99


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"TagRouter\.prior"):
        TagRouter(prior=0.0)
    with pytest.raises(InputError, match=r"TagRouter\.least"):
        TagRouter(least=0)
