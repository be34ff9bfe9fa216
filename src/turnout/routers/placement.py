"""This module holds a pool whose candidates are vectors over items that were learned from all of them.

What is learned first, the items, is the router's own: directions, discriminations. Everybody is then placed
on them by the same regression (`logistic_vectors`), those of the table and newcomers alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.routers.ground import Ground, Lesson
from turnout.routers.logistic_vectors import Prior, Vectors, place
from turnout.routers.neighbours import Array

Items = tuple[Floats, Floats]
"""Queries as items: h of shape (Q, D) and an offset of shape (Q,), for `sigmoid(offset + h . v_m)`."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The pool, everybody's vector, and the prior that placed them."""

    ground: Ground
    vectors: Vectors
    prior: Prior

    def estimate(self, queries: Sequence[Query], x_QF: Array, items: Items) -> Estimate:
        """Return the probabilities of everybody on the items, which were read from these vectors."""
        return self.ground.estimate(queries, *self.vectors.predict(*items), x_QF=x_QF)

    def with_added(self, candidate: Candidate, lesson: Lesson, items: Items) -> Placement:
        """Return the pool with one more candidate, placed on the items of its probe rows."""
        added = place(*items, lesson.targets.quality_QM, self.prior)
        return Placement(
            self.ground.with_added(candidate, lesson), self.vectors.with_added(added), self.prior
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return vectors and the centre of the prior; `placement_from` reads them back."""
        return {
            "vector": self.vectors.mean_MD,
            "covariance": self.vectors.covariance_MDD,
            "centre": self.prior.centre_D,
        }


def place_all(ground: Ground, lesson: Lesson, items: Items, prior: Prior) -> Placement:
    """Place every candidate of a lesson."""
    return Placement(ground, place(*items, lesson.targets.quality_QM, prior), prior)


def placement_from(state: State, ground: Ground, precision: float) -> Placement:
    """Rebuild from `Placement.arrays`; the precision of the prior is a setting and not learned."""
    of = state.arrays
    return Placement(ground, Vectors(of["vector"], of["covariance"]), Prior(of["centre"], precision))
