"""This module holds small configured classes that tests save and load."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, State


class Leaf(Configured):
    """Learns one array of its own dtype."""

    room: ClassVar[str] = "features"

    def __init__(self, *, rate: float = 1.0) -> None:
        self.rate = rate
        self.x_: np.ndarray | None = None

    @property
    def is_fitted(self) -> bool:
        return self.x_ is not None

    def learn(self, x: np.ndarray) -> Leaf:
        self.x_ = x
        return self

    def state(self) -> State:
        self.require_fitted("state")
        x = np.asarray(self.x_)
        return State(arrays={"x": x}, values={"shape": list(x.shape)})

    def restore(self, state: State) -> None:
        self.x_ = state.arrays["x"]
        assert list(self.x_.shape) == state.values["shape"]


class Tree(Configured):
    """Has a setting of every kind that may be stored, and parts."""

    room: ClassVar[str] = "features"

    def __init__(
        self,
        *,
        leaves: tuple[Configured, ...] = (),
        leaf: Leaf | None = None,
        goal: Goal | None = None,
        budget: Budget | None = None,
        pool: tuple[Candidate, ...] = (),
        name: str = "tree",
        is_tall: bool = False,
        height: int | None = None,
        odd: object = None,
    ) -> None:
        self.leaves, self.leaf, self.goal, self.budget = leaves, leaf, goal, budget
        self.pool, self.name, self.is_tall, self.height, self.odd = pool, name, is_tall, height, odd
        self.parts: dict[str, Configured] = {}

    def state(self) -> State:
        return State(parts=self.parts)

    def restore(self, state: State) -> None:
        self.parts = dict(state.parts)


class Clashing(Leaf):
    """Names an array like one of the leaf among its settings."""

    def __init__(self, *, leaf: Leaf) -> None:
        super().__init__()
        self.leaf = leaf

    @property
    def is_fitted(self) -> bool:
        return True

    def state(self) -> State:
        return State(arrays={"leaf.x": np.zeros(1)})


class Stranger(Leaf):
    """Stands in no registry."""


TABLE = {
    "leaf": "tests.core.things:Leaf",
    "tree": "tests.core.things:Tree",
    "clashing": "tests.core.things:Clashing",
}
