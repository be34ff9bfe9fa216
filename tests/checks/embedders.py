"""This module holds an embedder that keeps every promise, and ways to break each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnout.checks.fixtures import LetterCounts
from turnout.core.contracts import Embedder
from turnout.core.query import Query

# The original is final for its users; a broken copy is a subclass here so that one method differs.
GoodEmbedder: Any = type("GoodEmbedder", (LetterCounts,), {})


class UnstableEmbedder(GoodEmbedder):
    """Multiplies by a number that depends on the hash seed of the process."""

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        made: np.ndarray = GoodEmbedder.embed(self, queries)
        return made * np.float32(1 + hash("seed of this process") % 97)


class ForgetfulEmbedder(GoodEmbedder):
    """Loads something else than it saved."""

    mean_F: Any

    def restore(self, state: Any) -> None:
        GoodEmbedder.restore(self, state)
        self.mean_F = self.mean_F * 0


def broken(**methods: Any) -> Embedder:
    """Return an embedder of a class that overrides methods."""
    made: Embedder = type("Broken", (GoodEmbedder,), methods)()
    return made


def embedding(change: Callable[[Any, Sequence[Query], np.ndarray], np.ndarray]) -> Embedder:
    """Return an embedder whose vectors are changed: `change(self, queries, x_QF)`."""

    def embed(self: Any, queries: Sequence[Query]) -> np.ndarray:
        return change(self, queries, GoodEmbedder.embed(self, queries))

    return broken(embed=embed)


def fitting(change: Callable[[Any, Sequence[Query]], None]) -> Embedder:
    """Return an embedder that does something more at the end of `fit`: `change(self, queries)`."""

    def fit(self: Any, queries: Sequence[Query]) -> Any:
        GoodEmbedder.fit(self, queries)
        change(self, queries)
        return self

    return broken(fit=fit)
