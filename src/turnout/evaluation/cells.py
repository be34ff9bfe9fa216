"""This module holds what every cell of a table is worth: as it was recorded, or what stands in for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from turnout.core.errors import ShapeError, sentence

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Floats, OutcomeTable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """Quality and cost in USD of every query and candidate, all of shape (Q, M), NaN where unknown.

    Choices that were made before the outcome are scored by the first two, whose single values may lie
    outside of [0, 1] as long as their means are right. The oracle looks at a query's own outcomes before it
    chooses, so that such values would flatter it: it has a pair of its own.
    """

    quality_QM: Floats
    cost_usd_QM: Floats
    hindsight_QM: Floats
    """Quality that the oracle knows of and is scored by."""
    hindsight_usd_QM: Floats

    def fit(self, table: OutcomeTable) -> Cells:
        """Return these cells; raises `ShapeError` where an array has another shape than the table."""
        shape = table.quality_QM.shape
        for name in ("quality_QM", "cost_usd_QM", "hindsight_QM", "hindsight_usd_QM"):
            if (got := getattr(self, name).shape) != shape:
                raise ShapeError(sentence(f"evaluate: cells.{name}", allowed=f"(Q, M) = {shape}", got=got))
        return self

    def rows(self, keep_Q: Bools) -> Cells:
        """Return the part of the queries whose mask entry is true."""
        return Cells(
            quality_QM=self.quality_QM[keep_Q],
            cost_usd_QM=self.cost_usd_QM[keep_Q],
            hindsight_QM=self.hindsight_QM[keep_Q],
            hindsight_usd_QM=self.hindsight_usd_QM[keep_Q],
        )


def recorded(table: OutcomeTable) -> Cells:
    """Return the cells of a table as they were recorded."""
    return Cells(
        quality_QM=table.quality_QM,
        cost_usd_QM=table.cost_usd_QM,
        hindsight_QM=table.quality_QM,
        hindsight_usd_QM=table.cost_usd_QM,
    )
