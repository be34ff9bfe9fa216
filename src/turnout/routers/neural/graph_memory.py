"""This module keeps what a learned graph knows, and predicts the edges of a query with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.adam import sigmoid
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array

RANGE = 3.0
"""Cost ratios further than so many deviations from their mean count as so far."""


@dataclass(frozen=True, slots=True)
class GraphMemory:
    """Maps of a query, and the states of M candidates as what a query is multiplied with."""

    unit: Array
    """What embeddings are divided by, shape (1,)."""
    text_FD: Array
    topic_TD: Array
    """One row per task, then one of zeros for an unknown task."""
    quality_MS: Array
    cost_MS: Array
    cost_mean: Floats
    """Mean of the cost ratios, shape (M,)."""
    cost_deviation: Floats

    def predict(self, x_QF: Array, task_Q: Ints) -> tuple[Floats, Floats]:
        """Return the quality and the standardised cost that the network says, both (Q, M)."""
        state_QD = x_QF / self.unit @ self.text_FD + self.topic_TD[task_Q]
        state_QS = np.concatenate([state_QD, np.ones((x_QF.shape[0], 1), np.float32)], axis=1)
        logit_QM, cost_QM = state_QS @ self.quality_MS.T, state_QS @ self.cost_MS.T
        return sigmoid(logit_QM.astype(np.float64)), cost_QM.astype(np.float64)

    def standard(self, ratio_NM: Floats) -> Floats:
        """Return cost ratios in deviations from their means; 0 where a candidate's never vary."""
        is_flat_M = ~(self.cost_deviation > 1e-9 * np.abs(self.cost_mean))
        away_NM = (ratio_NM - self.cost_mean) / np.where(is_flat_M, np.inf, self.cost_deviation)
        standard_NM: Floats = np.clip(away_NM, -RANGE, RANGE)
        return standard_NM

    def ratio(self, standard_QM: Floats) -> Floats:
        """Return the cost ratios, not negative."""
        return np.maximum(self.cost_mean + standard_QM * np.nan_to_num(self.cost_deviation), 0.0)

    def balanced(self, cost_usd_NM: Floats, line_NM: Floats, ratio_NM: Floats) -> GraphMemory:
        """Return the memory with costs that add up to the recorded ones; of whom none is known, as it is."""
        said_NM = np.where(np.isfinite(cost_usd_NM), line_NM * ratio_NM, np.nan)
        paid_M, said_M = column_mean(cost_usd_NM), column_mean(said_NM)
        factor_M = np.where(said_M > 0.0, paid_M / np.where(said_M > 0.0, said_M, 1.0), 1.0)
        return replace(
            self, cost_mean=self.cost_mean * factor_M, cost_deviation=self.cost_deviation * factor_M
        )

    def with_added(self, other: GraphMemory) -> GraphMemory:
        """Return these candidates, then the other's."""
        names = ("quality_MS", "cost_MS", "cost_mean", "cost_deviation")
        return replace(
            self, **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `memory_from` reads it back."""
        return {f"graph.{f.name}": getattr(self, f.name) for f in fields(GraphMemory)}


def memory_from(arrays: Mapping[str, np.ndarray]) -> GraphMemory:
    """Rebuild from `GraphMemory.arrays`."""
    return GraphMemory(*(arrays[f"graph.{f.name}"] for f in fields(GraphMemory)))
