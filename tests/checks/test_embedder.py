"""For every promise of an embedder there is an embedder that breaks it, and the check says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.checks.embedders import GoodEmbedder, broken, embedding, fitting
from turnout.checks import check_embedder, run
from turnout.checks.configured import CONFIGURED_CHECKS
from turnout.checks.fixtures import LetterCounts
from turnout.core.contracts import Embedder, State


def learns(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    self.mean_F = self.mean_F + 0.01
    return x_QF


def by_batch(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    return x_QF * np.float32(1 + 0.1 * len(queries))


def with_nan(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    return np.where(x_QF == x_QF.max(initial=0.0), np.float32(np.nan), x_QF)


def by_id(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    return x_QF * np.array([[1 + 0.1 * len(query.id)] for query in queries], np.float32).reshape(-1, 1)


def needs_text(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    for query in queries:
        query.text.encode("utf-8")
    return x_QF


def tells_none_from_empty(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    return x_QF + np.array([[query.text is None] for query in queries], np.float32).reshape(-1, 1)


def dies_of_length(self: Any, queries: Any, x_QF: np.ndarray) -> np.ndarray:
    if any(len(query.words) > 100_000 for query in queries):
        raise MemoryError("too long")
    return x_QF


def remembers(self: Any, queries: Any) -> None:
    self.seen = getattr(self, "seen", 0) + len(queries)
    self.mean_F = self.mean_F * (1 + 0.01 * self.seen)


def by_chance(self: Any, queries: Any) -> None:
    self.mean_F = self.mean_F + np.float32(np.random.default_rng().random())


def by_first_text(self: Any, queries: Any) -> None:
    self.mean_F = self.mean_F + np.float32(0.01 * len(queries[0].words))


def needs_variety(self: Any, queries: Any) -> None:
    spread = self._shares(queries).std(axis=0).sum()
    self.mean_F = self.mean_F / spread if spread else np.full(27, np.nan, np.float32)


def reversed_state(self: Any) -> State:
    return State(arrays={"mean_F": GoodEmbedder.state(self).arrays["mean_F"][::-1]})


BREAKS: dict[str, list[Callable[[], Embedder]]] = {
    "vectors_are_an_array": [
        lambda: broken(fit=lambda self, queries: None),
        lambda: embedding(lambda self, queries, x_QF: x_QF.tolist()),
    ],
    "fit_returns_the_embedder": [lambda: broken(fit=lambda self, queries: LetterCounts().fit(queries))],
    "embedding_before_fit_is_refused": [lambda: broken(require_fitted=lambda self, move: None)],
    "vectors_are_float32_and_finite": [
        lambda: embedding(lambda self, queries, x_QF: x_QF.astype(np.float64)),
        lambda: embedding(with_nan),
        lambda: embedding(lambda self, queries, x_QF: x_QF.reshape(-1)),
    ],
    "different_texts_get_different_vectors": [
        lambda: embedding(lambda self, queries, x_QF: np.ones_like(x_QF))
    ],
    "a_batch_equals_one_by_one": [lambda: embedding(by_batch)],
    "an_id_is_not_a_feature": [lambda: embedding(by_id)],
    "embedding_does_not_learn": [lambda: embedding(learns)],
    "the_same_seed_gives_the_same_result": [lambda: fitting(by_chance)],
    "the_order_of_training_texts_does_not_matter": [lambda: fitting(by_first_text)],
    "fitting_again_forgets": [lambda: fitting(remembers)],
    "hard_texts_get_a_vector": [lambda: embedding(needs_text), lambda: embedding(tells_none_from_empty)],
    "few_texts_are_enough_to_fit": [lambda: fitting(needs_variety)],
    "its_state_survives_a_round_trip": [lambda: broken(state=reversed_state)],
    "a_text_of_a_megabyte_works": [lambda: embedding(dies_of_length)],
}

ELSEWHERE = {"saving_and_loading_changes_nothing", "another_process_gives_the_same_vectors"}
"""Checks that need a registered class; `test_configured` breaks them."""


def outcomes(embedder: Embedder) -> dict[str, str]:
    return {result.name: result.outcome for result in run(check_embedder(embedder)).results}


@pytest.mark.parametrize("embedder", [GoodEmbedder(), LetterCounts(), LetterCounts(scale=2.0)])
def test_a_good_embedder_passes(embedder: Embedder) -> None:
    found = outcomes(embedder)
    assert {name for name, outcome in found.items() if outcome == "failed"} == set()
    assert {name for name, outcome in found.items() if outcome == "skipped"} == ELSEWHERE


@pytest.mark.parametrize(
    ("name", "build"), [(name, build) for name, builds in BREAKS.items() for build in builds]
)
def test_a_broken_embedder_is_caught(name: str, build: Callable[[], Embedder]) -> None:
    report = run(check for check in check_embedder(build()) if check.name == name)
    assert [result.outcome for result in report.results] == ["failed"], str(report)


def test_every_embedder_check_is_broken_by_somebody() -> None:
    shared = {check.__name__ for check in CONFIGURED_CHECKS}
    assert set(outcomes(GoodEmbedder())) - shared == set(BREAKS) | ELSEWHERE
