"""The cache gives what the embedder inside gives, asks it once per text, and stays bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from tests.features.corpora import as_queries, real_queries
from turnout.core.contracts import Embedder
from turnout.core.query import Query
from turnout.features import CachedEmbedder, SignalsEmbedder


class Counting(Embedder):
    """Real signals, and how many requests were asked for."""

    def __init__(self) -> None:
        self.inside = SignalsEmbedder()
        self.num_asked = 0

    @property
    def is_fitted(self) -> bool:
        return self.inside.is_fitted

    def fit(self, queries: Sequence[Query]) -> Self:
        self.inside.fit(queries)
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        self.num_asked += len(queries)
        return self.inside.embed(queries)


def test_the_vectors_are_those_of_the_embedder_inside() -> None:
    queries = real_queries(40)
    inside = SignalsEmbedder().fit(queries)
    cached = CachedEmbedder(embedder=inside, max_entries=10)
    for part in (queries, queries[::-1], queries[5:9], ()):
        np.testing.assert_array_equal(cached.embed(part), inside.embed(part))


def test_a_text_is_embedded_once() -> None:
    inside = Counting().fit(real_queries(5))
    cached = CachedEmbedder(embedder=inside)
    cached.embed(as_queries(["a", "b", "a"]))
    cached.embed(as_queries(["b", "c"]))
    assert inside.num_asked == 3


def test_the_least_recently_used_goes_first() -> None:
    inside = Counting().fit(real_queries(5))
    cached = CachedEmbedder(embedder=inside, max_entries=2)
    for text in ("a", "b", "a", "c", "a"):
        cached.embed(as_queries([text]))
    assert inside.num_asked == 3
    assert cached.num_entries == 2
    cached.embed(as_queries(["b"]))
    assert inside.num_asked == 4


def test_requests_that_differ_beside_the_text_are_kept_apart() -> None:
    query = Query(id="q", text="same")
    inside = SignalsEmbedder().fit([query, replace(query, num_turns=7)])
    cached = CachedEmbedder(embedder=inside)
    one, two = cached.embed([query]), cached.embed([replace(query, num_turns=7)])
    assert (one != two).any()
