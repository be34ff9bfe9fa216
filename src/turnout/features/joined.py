"""This module puts several embedders side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_number
from turnout.features.sparse import Array


@final
class JoinedEmbedder(Embedder):
    """Concatenate the vectors of several embedders, each times its weight, scaled to length about 1.

    Parameters
    ----------
    embedders:
        One or more; a fitted one is shared as it is.
    weights:
        One per embedder, at least 0; None weighs all alike. Vectors are divided by the length of the
        weights, so the cosine of two rows is the weighted mean of the parts' cosines.

    Shapes
    ------
    Output float32 of shape (Q, F) with F the sum of the parts' F.
    """

    def __init__(self, *, embedders: tuple[Embedder, ...], weights: tuple[float, ...] | None = None) -> None:
        self.embedders = tuple(embedders)
        if not self.embedders or not all(isinstance(one, Embedder) for one in self.embedders):
            raise InputError(
                sentence("JoinedEmbedder.embedders", allowed="one or more embedders", got=self.embedders)
            )
        self.weights = None if weights is None else tuple(weights)
        if self.weights is not None:
            for weight in self.weights:
                check_number("JoinedEmbedder.weights", weight, low=0.0)
            if len(self.weights) != len(self.embedders) or not any(self.weights):
                raise InputError(
                    sentence(
                        "JoinedEmbedder.weights",
                        allowed=f"{len(self.embedders)} numbers, one of them above 0",
                        got=self.weights,
                    )
                )
        self.embedders_: tuple[Embedder, ...] = ()

    @property
    def is_fitted(self) -> bool:
        """Whether every part is fitted."""
        return bool(self.embedders_)

    def clone(self) -> Self:
        """Return an unfitted copy; parts that were given fitted stay shared."""
        parts = tuple(one if one.is_fitted else one.clone() for one in self.embedders)
        return type(self)(embedders=parts, weights=self.weights)

    def fit(self, queries: Sequence[Query]) -> Self:
        """Fit every part that is not fitted; returns self."""
        self.embedders_ = tuple(fitted(one, queries) for one in self.embedders)
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the parts side by side, float32 of shape (Q, F)."""
        self.require_fitted("embed")
        weights = np.ones(len(self.embedders)) if self.weights is None else np.array(self.weights)
        weights = (weights / np.linalg.norm(weights)).astype(np.float32)
        parts = [
            np.asarray(one.embed(queries), np.float32) * weight
            for one, weight in zip(self.embedders_, weights, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def state(self) -> State:
        """Return the parts that were fitted here."""
        self.require_fitted("state")
        pairs = enumerate(zip(self.embedders, self.embedders_, strict=True))
        return State(parts={str(i): used for i, (given, used) in pairs if used is not given})

    def restore(self, state: State) -> None:
        """Take over the parts."""
        parts = [state.parts.get(str(i), given) for i, given in enumerate(self.embedders)]
        self.embedders_ = tuple(part for part in parts if isinstance(part, Embedder))
