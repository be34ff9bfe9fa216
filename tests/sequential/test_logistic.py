"""The scorer's probabilities are those of its model, and it learns from what there is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnout.core import InputError, NotFittedError, Query
from turnout.core.artifact import load, save
from turnout.features import TextEmbedder
from turnout.sequential import Call, LogisticScorer, Observed
from turnout.sequential.logistic import _regress

QUERIES = [Query(id=f"q{i}", text=f"{'sum' if i % 2 else 'poem'} number {i}") for i in range(200)]


def seen(name: str = "a", answer: str | None = "yes", **signals: float) -> Observed:
    """Return an observation."""
    return Observed(call=Call(candidate=name), answer=answer, signals=signals)


def test_newton_reaches_the_point_where_the_gradient_is_zero() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4))
    y = (rng.random(80) < 0.5).astype(float)
    weights = _regress(x, y, 2.0)
    ones = np.column_stack([np.ones(80), x])
    slope = ones.T @ (y - 1 / (1 + np.exp(-ones @ weights))) - np.array([1e-6, 2, 2, 2, 2]) * weights
    assert np.abs(slope).max() < 1e-7


def test_separable_answers_do_not_run_away() -> None:
    x = np.linspace(-1, 1, 40)[:, None]
    weights = _regress(x, (x[:, 0] > 0).astype(float), 1.0)
    assert np.isfinite(weights).all()


def test_signals_names_and_texts_count() -> None:
    rng = np.random.default_rng(1)
    sure = rng.random(200)
    right = (rng.random(200) < sure).astype(float)
    by_signal = LogisticScorer(signals=["sure"]).fit(QUERIES, [seen(sure=s) for s in sure], right)
    assert (
        by_signal.score(QUERIES[0], seen(sure=0.95))
        > 0.7
        > 0.3
        > by_signal.score(QUERIES[0], seen(sure=0.05))
    )
    middle = by_signal.score(QUERIES[0], seen())
    assert middle == pytest.approx(by_signal.score(QUERIES[0], seen(sure=float(sure.mean()))))
    names = ["a" if i % 2 else "b" for i in range(200)]
    by_name = LogisticScorer().fit(
        QUERIES, [seen(n) for n in names], np.array([float(n == "a") for n in names])
    )
    assert by_name.score(QUERIES[0], seen("a")) > 0.8 > 0.2 > by_name.score(QUERIES[0], seen("b"))
    by_query = LogisticScorer(embedder=TextEmbedder(num_features=4)).fit(
        QUERIES, [seen() for _ in QUERIES], np.array([i % 2 for i in range(200)], float)
    )
    assert by_query.score(QUERIES[1], seen()) > 0.6 > 0.4 > by_query.score(QUERIES[0], seen())
    texts = ["I cannot do this" if i % 2 else "the answer is four" for i in range(200)]
    by_answer = LogisticScorer(answers=TextEmbedder(num_features=4)).fit(
        QUERIES, [seen(answer=t) for t in texts], np.array([1 - i % 2 for i in range(200)], float)
    )
    assert by_answer.score(QUERIES[0], seen(answer=texts[0])) > 0.7
    assert by_answer.score(QUERIES[0], seen(answer=texts[1])) < 0.3


def test_a_failed_call_scores_nothing_and_teaches_nothing() -> None:
    failed = Observed(call=Call(candidate="a"), error="gone")
    rows = [*(seen() for _ in range(10)), failed, seen()]
    quality = np.array([1.0] * 10 + [0.0, math.nan])
    scorer = LogisticScorer().fit(QUERIES[:12], rows, quality)
    assert scorer.score(QUERIES[0], failed) == 0.0
    assert scorer.score(QUERIES[0], seen()) > 0.9
    with pytest.raises(InputError, match="judged answers"):
        LogisticScorer().fit(QUERIES[:1], [failed], np.array([1.0]))


def test_it_is_saved_and_needs_fitting(tmp_path: object) -> None:
    with pytest.raises(NotFittedError):
        LogisticScorer().score(QUERIES[0], seen())
    scorer = LogisticScorer(embedder=TextEmbedder(num_features=4), answers=TextEmbedder(num_features=4))
    scorer.fit(QUERIES, [seen(answer=f"it is {i}") for i in range(200)], np.arange(200) / 200)
    again = load(save(scorer, f"{tmp_path}/artifact"))
    assert isinstance(again, LogisticScorer)
    assert again.score(QUERIES[3], seen()) == scorer.score(QUERIES[3], seen())
