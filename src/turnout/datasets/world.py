"""This module keeps a sampled table together with the truth that it was sampled from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from turnout.core.outcomes import OutcomeTable
from turnout.core.validation import check_choice, check_number

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """The best that any policy can do in expectation at one price."""

    price: float
    """Dual price of money, in quality per USD."""
    quality: float
    """Mean expected quality of the best choices."""
    cost_usd: float
    """Mean expected cost of the best choices, in USD per query."""
    choice_Q: Ints
    """Index of the best candidate of each query; ties go to the first."""

    @property
    def value(self) -> float:
        """What the choices are worth: quality - price x cost_usd."""
        return self.quality - self.price * self.cost_usd


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticWorld:
    """A sampled table together with the truth it was sampled from."""

    table: OutcomeTable
    """What a router may learn from."""
    quality_QM: Floats
    """True expected quality, shape (Q, M)."""
    cost_usd_QM: Floats
    """True expected cost in USD, shape (Q, M)."""
    topic_Q: Ints
    """Latent topic of each query; the table's `task` is `topic<number>`."""
    difficulty_Q: Floats
    """Latent difficulty of each query, in [0, 1]."""

    def optimum(self, price: float, *, split: str | None = None) -> Optimum:
        """Return the best choices at `price` (quality per USD, finite), over one split or all queries."""
        check_number("SyntheticWorld.optimum: price", price, low=0.0, high=float("inf"), allow_high=False)
        keep_Q = self._rows(split)
        score_QM = self.quality_QM[keep_Q] - price * self.cost_usd_QM[keep_Q]
        choice_Q = score_QM.argmax(axis=1)
        quality, cost_usd = self.worth_of(choice_Q, split=split)
        return Optimum(price=price, quality=quality, cost_usd=cost_usd, choice_Q=choice_Q)

    def worth_of(self, choice_Q: npt.ArrayLike, *, split: str | None = None) -> tuple[float, float]:
        """Return the true expected (quality, cost in USD) per query of any choice of candidate indices."""
        keep_Q = self._rows(split)
        choice_Q = np.asarray(choice_Q, dtype=np.int64)
        rows = np.arange(keep_Q.size)
        quality = self.quality_QM[keep_Q][rows, choice_Q].mean()
        return float(quality), float(self.cost_usd_QM[keep_Q][rows, choice_Q].mean())

    def _rows(self, split: str | None) -> Ints:
        if split is None:
            return np.arange(len(self.table.queries))
        check_choice("SyntheticWorld: split", split, ("train", "test"))
        return np.flatnonzero([name == split for name in self.table.splits])
