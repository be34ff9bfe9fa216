"""This module stores queries with their outcomes, and answers from the most similar ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.means import Means, means_from
from turnout.routers.neighbours import Array, Lists, halved, lists_from, nearest
from turnout.routers.packing import below, under
from turnout.routers.smoothing import Answer, Columns, Smoothing, columns_of, stack
from turnout.routers.targets import Targets

_OUTCOMES = ("quality", "cost_usd", "latency_s")
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
        num_columns = max(self._columns.value_NC.shape[1], 1)
        step = max(1, _CELLS // (smoothing.k * num_columns))
        if self._columns.is_wide(len(x_QF), smoothing.k):
            step = max(1, _CELLS // num_columns)
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
        """Return everything by name; `bank_from` reads it back. What is known of nobody is left out."""
        stored: dict[str, np.ndarray] = {"x": self.x_NF.astype(np.float16)}
        for name, values_NM in zip(_OUTCOMES, _values(self.targets), strict=True):
            if np.isfinite(values_NM).any():
                stored[name] = values_NM.astype(np.float32)
        means = under("mean.", self.means.arrays())
        lists = {} if self.lists is None else under("list.", self.lists.arrays())
        return {**stored, **means, **lists}


def rounded(x_NF: Array, targets: Targets) -> tuple[Array, Targets]:
    """Return what a bank stores as an artifact holds it: vectors in half, outcomes in single precision."""
    kept = (values_NM.astype(np.float32).astype(np.float64) for values_NM in _values(targets))
    return halved(x_NF), Targets(*kept)


def _values(targets: Targets) -> tuple[Floats, Floats, Floats]:
    return targets.quality_QM, targets.cost_usd_QM, targets.latency_s_QM


def bank_from(arrays: Mapping[str, np.ndarray]) -> Bank:
    """Rebuild from `Bank.arrays`."""
    x_NF = np.asarray(arrays["x"], np.float32)
    means, lists = below("mean.", arrays), below("list.", arrays)
    unknown_NM = np.full((len(x_NF), means["quality"].shape[-1]), np.nan)
    return Bank(
        x_NF,
        Targets(*(np.asarray(arrays.get(name, unknown_NM), np.float64) for name in _OUTCOMES)),
        means_from(means),
        lists_from(x_NF, lists) if lists else None,
    )
