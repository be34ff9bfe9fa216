"""This module turns choices into means: every distinct column of choices once, with its resamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.decision import NONE
from turnout.evaluation.bootstrap import resampled_means
from turnout.evaluation.value import Value, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from turnout.core.outcomes import Floats, Ints

USD_PER_1K = 1000.0
"""Queries in the unit in which money is shown."""


class ChoiceBook:
    """Collects columns of choices; an equal column is stored once and so scores exactly the same."""

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._columns: list[Ints] = []

    def add(self, choice_Q: Ints) -> int:
        """Return the slot of the column, shape (Q,), adding it if it is new."""
        column = np.ascontiguousarray(choice_Q, dtype=np.int64)
        key = column.tobytes()
        if key not in self._slots:
            self._slots[key] = len(self._columns)
            self._columns.append(column)
        return self._slots[key]

    @property
    def choice_QU(self) -> Ints:
        """The distinct columns, shape (Q, U)."""
        return np.stack(self._columns, axis=1)


@final
@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Quality and cost of every column on every scored query."""

    quality_QU: Floats
    cost_usd_QU: Floats | None


@final
@dataclass(frozen=True, kw_only=True)
class Means:
    """Means of columns, on the data and on B resamples; costs are in usd per query."""

    quality_U: Floats
    quality_BU: Floats
    cost_usd_U: Floats | None
    cost_usd_BU: Floats | None
    confidence: float

    def quality(self, column: int) -> Value:
        """Mean quality of a column, within the range of quality.

        Single values that stand in for what was not observed may lie outside of it, and their mean with them.
        """
        return interval(float(self.quality_U[column]), self.quality_BU[:, column], self.confidence).within(
            0.0, 1.0
        )

    def usd_per_1k(self, column: int) -> Value | None:
        """Mean cost of a column per 1,000 queries."""
        if self.cost_usd_U is None or self.cost_usd_BU is None:
            return None
        cost, draws_B = float(self.cost_usd_U[column]), self.cost_usd_BU[:, column]
        return interval(cost * USD_PER_1K, draws_B * USD_PER_1K, self.confidence)

    def difference(self, column: int, other: int) -> Value:
        """Paired difference of the mean quality of two columns."""
        draws_B = self.quality_BU[:, column] - self.quality_BU[:, other]
        return interval(float(self.quality_U[column] - self.quality_U[other]), draws_B, self.confidence)

    def over(self, value: Floats | float, draws_B: Floats) -> Value:
        """A number that was computed from the means, with its resamples."""
        return interval(float(value), draws_B, self.confidence)


def look_up(choice_QU: Ints, quality_QM: Floats, cost_usd_QM: Floats | None) -> Outcomes:
    """Return the outcomes of the choices; a refusal has quality 0 and cost 0."""

    def pick(values_QM: Floats) -> Floats:
        taken_QU = np.take_along_axis(values_QM, np.maximum(choice_QU, 0), axis=1)
        picked_QU: Floats = np.where(choice_QU == NONE, 0.0, taken_QU)
        return picked_QU

    return Outcomes(
        quality_QU=pick(quality_QM), cost_usd_QU=None if cost_usd_QM is None else pick(cost_usd_QM)
    )


def join(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the columns of several outcomes side by side."""
    costs = [part.cost_usd_QU for part in parts if part.cost_usd_QU is not None]
    return Outcomes(
        quality_QU=np.concatenate([part.quality_QU for part in parts], axis=1),
        cost_usd_QU=np.concatenate(costs, axis=1) if costs else None,
    )


def means(
    outcomes: Outcomes,
    *,
    num_resamples: int,
    confidence: float,
    rng: np.random.Generator,
    groups_Q: Ints | None,
) -> Means:
    """Return the means of all columns over the same resamples."""
    quality_QU, cost_QU = outcomes.quality_QU, outcomes.cost_usd_QU
    width = quality_QU.shape[1]
    stacked_QU = quality_QU if cost_QU is None else np.concatenate([quality_QU, cost_QU], axis=1)
    drawn_BU = resampled_means(stacked_QU, num_resamples=num_resamples, rng=rng, groups_Q=groups_Q)
    return Means(
        quality_U=quality_QU.mean(axis=0),
        quality_BU=drawn_BU[:, :width],
        cost_usd_U=None if cost_QU is None else cost_QU.mean(axis=0),
        cost_usd_BU=None if cost_QU is None else drawn_BU[:, width:],
        confidence=confidence,
    )
