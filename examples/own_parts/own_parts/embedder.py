"""This module describes a text by what meets the eye: its length and its kinds of characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State
from turnout.core.query import Query
from turnout.core.validation import check_number


@final
class SurfaceEmbedder(Embedder):
    """Embed a text as length, digits, capitals, punctuation and line breaks, each over its deviation.

    Parameters
    ----------
    scale:
        The length of a vector is at most this, above 0.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = check_number("SurfaceEmbedder.scale", scale, low=0.0, high=1e6, allow_low=False)
        self.arrays_: dict[str, np.ndarray] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether means were learned."""
        return bool(self.arrays_)

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn mean and deviation of each count; returns self."""
        x_QF = _counts(queries) if queries else np.zeros((1, 5))
        # Sorted, so that the sums do not depend on the order of the texts.
        x_QF = np.sort(x_QF, axis=0)
        self.arrays_ = {"mean": x_QF.mean(axis=0), "deviation": np.maximum(x_QF.std(axis=0), 1e-6)}
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        """Return `x_QF`, float32 of shape (Q, 5)."""
        self.require_fitted("embed")
        x_QF = (_counts(queries) - self.arrays_["mean"]) / self.arrays_["deviation"]
        length_Q1 = np.sqrt((x_QF**2).sum(axis=1, keepdims=True))
        return np.asarray(self.scale * x_QF / np.maximum(length_Q1, 1.0), np.float32)

    def state(self) -> State:
        """Return means and deviations."""
        self.require_fitted("state")
        return State(arrays=self.arrays_)

    def restore(self, state: State) -> None:
        """Take over means and deviations."""
        self.arrays_ = dict(state.arrays)


def _counts(queries: Sequence[Query]) -> np.ndarray:
    rows = [
        [
            np.log1p(len(text)),
            _share(text, str.isdigit),
            _share(text, str.isupper),
            _share(text, lambda c: not c.isalnum() and not c.isspace()),
            _share(text, lambda c: c == "\n"),
        ]
        for text in (query.words for query in queries)
    ]
    return np.array(rows, np.float64).reshape(len(rows), 5)


def _share(text: str, is_kind: object) -> float:
    return sum(map(is_kind, text)) / max(len(text), 1)  # type: ignore[arg-type]
