"""This module holds a pool whose qualities are lines drawn through the scores of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.routers.ground import Ground, Lesson, ground_from
from turnout.routers.neighbours import Array
from turnout.routers.neural.scale import ScoreScale, scale_from


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool, and what a score of each candidate is worth."""

    ground: Ground
    scale: ScoreScale

    def estimate(self, queries: Sequence[Query], x_QF: Array, score_QM: Floats) -> Estimate:
        """Return the qualities of the scores; a text of which nothing is known has the means."""
        is_blank_Q = np.asarray(~x_QF.any(axis=1))
        return self.ground.estimate(queries, *self.scale.apply(score_QM, is_blank_Q), x_QF=x_QF)

    def with_added(self, candidate: Candidate, lesson: Lesson, scale: ScoreScale) -> Scored:
        """Return the pool with one more candidate and its line."""
        return Scored(self.ground.with_added(candidate, lesson), self.scale.with_added(scale))

    def state(self, given: Embedder | None, arrays: Mapping[str, np.ndarray]) -> State:
        """Return the state of a router that holds this pool; `scored_from` reads its part."""
        return self.ground.state(given, {**arrays, **self.scale.arrays()})


def unit_of(x_NF: Array) -> float:
    """Return what vectors are divided by, so that each number has about a deviation of one."""
    return max(float(np.sqrt(np.square(x_NF).mean())), 1e-6)


def scored_from(state: State, given: Embedder | None) -> Scored:
    """Rebuild from `Scored.state`."""
    return Scored(ground_from(state, given), scale_from(state.arrays))
