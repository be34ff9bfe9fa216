"""This module reads numbers that were recorded with a query: hidden states, probes, features of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import numpy as np
import numpy.typing as npt

from turnout.core.contracts import Embedder, State
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count, check_name, check_number
from turnout.features.sparse import Array


@final
class ColumnsEmbedder(Embedder):
    """Hand over the numbers that stand in tags of a query, standardised in `fit`.

    A tag holds one number or several, with spaces or commas between them: what a probe on the hidden states
    of a model says, the states themselves, the features of an image. Whoever asks computes them; a table
    records them in the column `tags`, a request brings them along. Beside text stands `JoinedEmbedder`.

    Source
    ------
    S54: RouterXBench, arXiv 2602.11877 (abstract): routers on hidden states that are read before the answer;
    S55: VL-RouterBench, arXiv 2512.23562 (abstract), on features of images.

    Differs
    -------
    Neither says how to hand them over; numbers in tags are ours.

    Parameters
    ----------
    names:
        Names of the tags, in order.
    limit:
        A standardised number is cut at so many deviations.
    num_layers:
        How many layers of hidden states stand side by side, for `ProbeRouter`, which weighs them.

    Shapes
    ------
    Output float32 of shape (Q, F), F the numbers of all tags together, divided by sqrt(F). Where a query
    lacks a tag its numbers are 0, the mean. Without any number in the training queries F is 1.

    Cost
    ----
    O(F) per query.

    Raises
    ------
    InputError
        For a tag that is no number, or holds more or fewer of them than in the training queries.
    """

    def __init__(
        self, *, names: tuple[str, ...] = ("signals",), limit: float = 4.0, num_layers: int = 1
    ) -> None:
        self.names = tuple(names)
        if not self.names:
            raise InputError(sentence("ColumnsEmbedder.names", allowed="one or more names", got=self.names))
        for name in self.names:
            check_name("ColumnsEmbedder.names", name)
        self.limit = check_number("ColumnsEmbedder.limit", limit, low=0.0, allow_low=False)
        self.num_layers = check_count("ColumnsEmbedder.num_layers", num_layers)
        self.widths_: tuple[int, ...] | None = None
        self.centre_F: Array = np.zeros(0, np.float32)
        self.scale_F: Array = np.zeros(0, np.float32)

    @property
    def is_fitted(self) -> bool:
        """Whether means and deviations were learned."""
        return self.widths_ is not None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn how many numbers each tag holds, their means and deviations; returns self."""
        self.widths_ = tuple(
            max((len(_numbers(query, name)) for query in queries), default=0) for name in self.names
        )
        raw_QF = self._read(queries)
        known_QF = np.isfinite(raw_QF)
        num_F = np.maximum(known_QF.sum(axis=0), 1)
        centre_F = np.where(known_QF, raw_QF, 0.0).sum(axis=0) / num_F
        away_QF = np.where(known_QF, raw_QF - centre_F, 0.0)
        deviation_F = np.sqrt(np.square(away_QF).sum(axis=0) / num_F)
        is_constant_F = deviation_F < 1e-9
        self.centre_F = centre_F.astype(np.float32)
        self.scale_F = np.where(is_constant_F, 0.0, 1.0 / np.where(is_constant_F, 1.0, deviation_F)).astype(
            np.float32
        )
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the standardised numbers, float32 of shape (Q, F)."""
        self.require_fitted("embed")
        standard_QF = np.nan_to_num((self._read(queries) - self.centre_F) * self.scale_F)
        cut_QF = np.clip(standard_QF, -self.limit, self.limit) / math.sqrt(max(self.centre_F.size, 1))
        return np.asarray(cut_QF, np.float32)

    def state(self) -> State:
        """Return widths, means and deviations."""
        self.require_fitted("state")
        return State(
            arrays={"centre": self.centre_F, "scale": self.scale_F},
            values={"widths": list(self.widths_ or ())},
        )

    def restore(self, state: State) -> None:
        """Take over widths, means and deviations."""
        widths = state.values["widths"]
        assert isinstance(widths, list)
        self.widths_ = tuple(widths)
        self.centre_F, self.scale_F = state.arrays["centre"], state.arrays["scale"]

    def _read(self, queries: Sequence[Query]) -> npt.NDArray[np.float64]:
        """Return the numbers, shape (Q, F), NaN where a tag is missing."""
        widths = self.widths_ or ()
        raw_QF = np.full((len(queries), max(sum(widths), 1)), np.nan)
        for row, query in enumerate(queries):
            low = 0
            for name, width in zip(self.names, widths, strict=True):
                found = _numbers(query, name)
                if found and len(found) != width:
                    raise InputError(
                        sentence(
                            f"ColumnsEmbedder: tag {name!r} of query {query.id!r}",
                            allowed=f"{width} numbers, as in the training queries", got=len(found),
                            do="record the same numbers for every query, or leave the tag out",
                        )
                    )  # fmt: skip
                if found:
                    raw_QF[row, low : low + width] = found
                low += width
        return raw_QF


def _numbers(query: Query, name: str) -> list[float]:
    parts = query.tags.get(name, "").replace(",", " ").split()
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise InputError(
            sentence(
                f"ColumnsEmbedder: tag {name!r} of query {query.id!r}",
                allowed="finite numbers with spaces or commas between them", got=query.tags[name],
            )
        )  # fmt: skip
    return found
