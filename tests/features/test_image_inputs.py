"""Features of images go through the contract of embedders, and a router learns from them like from text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest

from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.contracts import Embedder, Router
from turnout.features import JoinedEmbedder, TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter


class ImageVectors(Embedder):
    """Vectors that a vision encoder made of the image of each query, by the name of the image."""

    def __init__(self, *, num_features: int = 8) -> None:
        self.num_features = num_features

    def fit(self, queries: Sequence[Query]) -> Self:
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        names = [int(query.tags["image"]) for query in queries]
        vectors = [np.random.default_rng(name).normal(size=self.num_features) for name in names]
        x_QF = np.reshape(vectors, (-1, self.num_features)).astype(np.float32)
        # Every second image is a chart, and the encoder sees it.
        x_QF[:, 0] += np.where(np.array(names) % 2, 4.0, -4.0)
        return x_QF / np.linalg.norm(x_QF, axis=1, keepdims=True)


def table(start: int, num: int) -> OutcomeTable:
    """Return outcomes of a model that reads charts and one that does not; the text tells nothing."""
    rng = np.random.default_rng(start)
    queries = [
        Query(id=str(i), text=f"what does it show {rng.integers(9)}", tags={"image": str(i)})
        for i in range(start, start + num)
    ]
    is_chart_Q = np.arange(start, start + num) % 2 == 1
    chance_QM = np.stack([np.where(is_chart_Q, 0.9, 0.2), np.where(is_chart_Q, 0.3, 0.8)], axis=1)
    return OutcomeTable(
        queries=queries,
        candidates=[Candidate(model="charts"), Candidate(model="photos")],
        query_index=np.repeat(np.arange(num), 2),
        candidate_index=np.tile([0, 1], num),
        quality=(rng.random((num, 2)) < chance_QM).astype(np.float64).ravel(),
    )


@pytest.mark.parametrize("cls", [KNNRouter, RidgeRouter])
def test_a_router_learns_from_images_beside_the_text(cls: type[KNNRouter] | type[RidgeRouter]) -> None:
    train, fresh = table(0, 300), table(1_000, 100)
    joined = JoinedEmbedder(embedders=(TextEmbedder(num_features=8), ImageVectors()))

    def share_right(router: Router) -> float:
        choice_Q = router.fit(train).estimate(fresh.queries).quality_QM.argmax(axis=1)
        return float((choice_Q == (np.arange(100) % 2 == 0)).mean())

    assert share_right(cls(embedder=joined)) > 0.95
    assert share_right(cls(embedder=TextEmbedder(num_features=8))) < 0.7
