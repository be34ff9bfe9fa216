"""This module stores queries with their outcomes, and answers from the most similar ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from turnout.routers.means import Means, means_from
from turnout.routers.neighbours import Array, Lists, lists_from, nearest
from turnout.routers.packing import below, under
from turnout.routers.smoothing import Answer, Columns, Smoothing, columns_of, stack
from turnout.routers.targets import Targets

_CELLS = 1 << 22
"""Cells (query, neighbour, candidate) that one step gathers; bounds memory."""


@dataclass(frozen=True, slots=True)
class Bank:
    """N stored queries with the outcomes of M candidates, NaN where not observed."""

    x_NF: Array
    targets: Targets
    means: Means
    lists: Lists | None
    """Inverted lists whose vectors are `x_NF`, or None for brute force."""
    _columns: Columns = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_columns", columns_of(self.targets))

    def answer(self, x_QF: Array, smoothing: Smoothing) -> Answer:
        """Average the k most similar stored queries around each query."""
        step = max(1, _CELLS // (smoothing.k * max(self._columns.value_NC.shape[1], 1)))
        lows = range(0, max(len(x_QF), 1), step)
        parts = [self._answer(x_QF[low : low + step], smoothing) for low in lows]
        return parts[0] if len(parts) == 1 else stack(parts, axis=0)

    def _answer(self, x_QF: Array, smoothing: Smoothing) -> Answer:
        if self.lists is None:
            index_QK, similarity_QK = nearest(self.x_NF, x_QF, smoothing.k)
        else:
            index_QK, similarity_QK = self.lists.search(x_QF, smoothing.k)
        weight_QK = smoothing.weigh(similarity_QK)
        return self._columns.smooth(index_QK, weight_QK, self.means, smoothing.prior)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `bank_from` reads it back."""
        stored: dict[str, np.ndarray] = {
            "x": self.x_NF,
            "quality": self.targets.quality_QM,
            "cost_usd": self.targets.cost_usd_QM,
            "latency_s": self.targets.latency_s_QM,
        }
        means = under("mean.", self.means.arrays())
        lists = {} if self.lists is None else under("list.", self.lists.arrays())
        return {**stored, **means, **lists}


def bank_from(arrays: Mapping[str, np.ndarray]) -> Bank:
    """Rebuild from `Bank.arrays`."""
    x_NF = arrays["x"]
    lists = below("list.", arrays)
    return Bank(
        x_NF,
        Targets(arrays["quality"], arrays["cost_usd"], arrays["latency_s"]),
        means_from(below("mean.", arrays)),
        lists_from(x_NF, lists) if lists else None,
    )
