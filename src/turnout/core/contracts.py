"""This module states the contracts between the rooms: what a class of each kind must do.

Three moves everywhere: *store* (the constructor validates and keeps a configuration that never changes),
*learn* (`fit`, `observe`), *answer* (`estimate`, `decide`, `embed`, `pick`, `next`). Every contract is
abstract; every implementation is final; to change one, wrap it.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from turnout.core.errors import InputError, NotFittedError, sentence

if TYPE_CHECKING:
    from turnout.core.budget import Budget
    from turnout.core.candidate import Candidate
    from turnout.core.decision import Decisions
    from turnout.core.estimate import Estimate
    from turnout.core.outcomes import Floats, OutcomeTable
    from turnout.core.query import Query


@dataclass(frozen=True, kw_only=True)
class State:
    """What an object has learned, in a form that is safe to store."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Numeric arrays by name; stored as safetensors."""
    values: Mapping[str, object] = field(default_factory=dict)
    """JSON values by name; stored in the manifest."""
    parts: Mapping[str, Configured] = field(default_factory=dict)
    """Learned objects by name, such as a fitted embedder."""


class Configured(ABC):
    """Anything with a configuration that can be saved: constructor arguments in, the same out."""

    room: ClassVar[str]
    """The room whose registry names this class; set by the contract, not by implementations."""

    def config(self) -> dict[str, object]:
        """Return the constructor's arguments; each is stored under its own name by every class."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def clone(self) -> Self:
        """Return a new object with the same configuration that has learned nothing."""
        arguments = {
            name: value.clone() if isinstance(value, Configured) and not value.is_fitted else value
            for name, value in self.config().items()
        }
        return type(self)(**arguments)

    @property
    def is_fitted(self) -> bool:
        """Whether the object can answer; classes that learn nothing always can."""
        return True

    def state(self) -> State:
        """Return what was learned; classes that learn nothing return an empty state."""
        return State()

    def restore(self, state: State) -> None:
        """Take over a state that `state` returned, on an object with the same configuration."""
        if state.arrays or state.values or state.parts:
            raise InputError(
                sentence(f"{type(self).__name__}.restore", allowed="an empty state", got="a learned one")
            )

    def require_fitted(self, move: str) -> None:
        """Raise `NotFittedError` unless `is_fitted`."""
        if not self.is_fitted:
            raise NotFittedError(
                sentence(f"{type(self).__name__}.{move} was called before fit", do="call fit first")
            )

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({inside})"


class Embedder(Configured):
    """Turns queries into vectors."""

    room: ClassVar[str] = "features"

    @abstractmethod
    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn from texts alone (never from outcomes); returns self."""

    @abstractmethod
    def embed(self, queries: Sequence[Query]) -> Floats | np.ndarray:
        """Return `x_QF`, float32 of shape (Q, F); changes nothing."""


class Router(Configured):
    """Predicts quality, spread, cost and latency of every candidate on every query."""

    room: ClassVar[str] = "routers"

    @abstractmethod
    def fit(self, table: OutcomeTable) -> Self:
        """Learn from recorded outcomes; returns self. Fitting again forgets what was learned."""

    @abstractmethod
    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the estimate for these queries, shape (Q, M); changes nothing."""

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Learn one more candidate from its rows in `table` without a refit of the others."""
        raise InputError(
            sentence(
                f"{type(self).__name__} cannot add {candidate.name!r} to a fitted pool (its probe table has "
                f"{table.num_rows} rows)",
                do="fit again on a table that holds it",
            )
        )


class Policy(Configured):
    """Decides from estimates and a budget; knows no text and no model."""

    room: ClassVar[str] = "policies"

    @abstractmethod
    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; a mask of nobody gives the choice -1."""


def fitted(embedder: Embedder, queries: Sequence[Query]) -> Embedder:
    """Return the embedder itself if it is fitted (shared between routers), else a fitted copy."""
    return embedder if embedder.is_fitted else embedder.clone().fit(queries)
