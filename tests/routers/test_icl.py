"""Examples in context: candidates are their profiles, and what the layer learned serves a newcomer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table
from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import ICLRouter, KNNRouter, RidgeRouter

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


class Numbers(Embedder):
    """Reads a vector that was written into the text, and gives it length 1."""

    is_fitted = True

    def fit(self, queries: object) -> Numbers:
        return self

    def embed(self, queries: object) -> np.ndarray:
        rows = [[float(part) for part in query.words.split()] for query in queries]  # type: ignore[attr-defined]
        x_QF = np.array(rows, np.float32).reshape(-1, 12)
        return x_QF / np.maximum(np.linalg.norm(x_QF, axis=1, keepdims=True), 1e-9)

    def state(self) -> State:
        return State()

    def restore(self, state: State) -> None:
        return


def planted(num: int, good_MC: np.ndarray, seed: int, name: str = "m") -> tuple[OutcomeTable, np.ndarray]:
    """Return draws and truths: the signs of two of twelve numbers tell a cell of four, ten are noise."""
    rng = np.random.default_rng(seed)
    sign_Q2 = rng.choice([-1.0, 1.0], (num, 2))
    x_QF = np.concatenate([sign_Q2, 1.2 * rng.normal(size=(num, 10))], axis=1)
    cell_Q = (sign_Q2 > 0) @ np.array([1, 2])
    truth_QM = good_MC.T[cell_Q]
    drawn_QM = (rng.random(truth_QM.shape) < truth_QM).astype(float)
    plain = dense_table(drawn_QM, [" ".join(f"{value:.5f}" for value in row) for row in x_QF])
    return OutcomeTable(
        queries=plain.queries, candidates=[Candidate(model=f"{name}{i}") for i in range(len(good_MC))],
        query_index=plain.query_index, candidate_index=plain.candidate_index, quality=plain.quality,
    ), truth_QM  # fmt: skip


def test_what_the_layer_learned_about_texts_serves_a_newcomer() -> None:
    # Good in opposite cells: no line tells them apart, and most of a distance is noise.
    good_MC = np.array(
        [[0.95, 0.1, 0.1, 0.95], [0.1, 0.9, 0.9, 0.05], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.1, 0.9]]
    )
    old, _ = planted(500, good_MC, seed=0)

    def error(router: Router) -> float:
        router.fit(old)
        total = 0.0
        for i, good_C in enumerate(([0.1, 0.95, 0.9, 0.1], [0.95, 0.1, 0.1, 0.9], [0.9, 0.1, 0.05, 0.95])):
            probe, _ = planted(50, np.array([good_C]), seed=20 + i, name=f"new{i}")
            router.add_candidate(probe.candidates[0], probe)
            asked, truth_QM = planted(200, np.array([good_C]), seed=9)
            found_Q = router.estimate(asked.queries).quality_QM[:, -1]
            total += float(np.mean((found_Q - truth_QM[:, 0]) ** 2)) / 3
        return total

    # Fifty rows do not tell which two of twelve numbers matter; the old candidates' rows did.
    mine = error(ICLRouter(embedder=Numbers()))
    by_knn, by_ridge = error(KNNRouter(embedder=Numbers())), error(RidgeRouter(embedder=Numbers()))
    assert mine < 0.75 * min(by_knn, by_ridge), (mine, by_knn, by_ridge)


def test_equal_examples_get_equal_estimates_whoever_they_belong_to() -> None:
    table = real_table()
    router = ICLRouter(embedder=EMBEDDER, num_examples=100).fit(table)
    alone = table.select(candidates=[table.candidates[3].name])
    twin = OutcomeTable(
        queries=alone.queries, candidates=[Candidate(model="twin")], query_index=alone.query_index,
        candidate_index=alone.candidate_index, quality=alone.quality,
    )  # fmt: skip
    router.add_candidate(twin.candidates[0], twin)
    estimate = router.estimate(table.queries)
    np.testing.assert_allclose(estimate.quality_QM[:, -1], estimate.quality_QM[:, 3], rtol=1e-6)
    np.testing.assert_allclose(estimate.spread_QM[:, -1], estimate.spread_QM[:, 3], rtol=1e-6)


def test_few_examples_say_little() -> None:
    table = real_table()
    others = [candidate.name for candidate in table.candidates[1:]]
    spread = []
    for num in (6, 120):
        router = ICLRouter(embedder=EMBEDDER).fit(table.select(candidates=others))
        router.add_candidate(table.candidates[0], table.where(np.arange(len(table.queries)) < num))
        spread.append(router.estimate(table.queries).spread_QM[:, -1].mean())
    assert spread[0] > 1.1 * spread[1]


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"ICLRouter\.num_examples"):
        ICLRouter(num_examples=0)
    assert ICLRouter(embedder=EMBEDDER).fit(real_table()).estimate([Query(id="a", text=None)]).names
