"""What every configured class inherits: config, clone, state, and the sentences of refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest

from tests.core.tables import hand_table
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, Embedder, Policy, Router, State, fitted
from turnout.core.errors import InputError, NotFittedError
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query


class Lengths(Embedder):
    """Embeds a text as its length over the mean length."""

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power
        self.mean_: float | None = None

    @property
    def is_fitted(self) -> bool:
        return self.mean_ is not None

    def fit(self, queries: Sequence[Query]) -> Self:
        self.mean_ = float(np.mean([len(query.words) for query in queries]))
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        self.require_fitted("embed")
        assert self.mean_ is not None
        return np.array([[len(query.words) / self.mean_] for query in queries], np.float32) ** self.power


class Constant(Router):
    """Estimates one number for everybody."""

    def __init__(self, *, quality: float = 0.5, embedder: Embedder | None = None) -> None:
        self.quality = quality
        self.embedder = embedder
        self.pool: tuple[Candidate, ...] = ()

    def fit(self, table: OutcomeTable) -> Self:
        self.pool = table.candidates
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        return make_estimate(self.pool, np.full((len(queries), len(self.pool)), self.quality))


def test_a_configuration_is_the_constructors_arguments() -> None:
    embedder = Lengths(power=2.0)
    assert Constant(quality=0.25, embedder=embedder).config() == {"quality": 0.25, "embedder": embedder}
    assert repr(Constant()) == "Constant(quality=0.5, embedder=None)"


def test_a_clone_shares_what_is_fitted_and_copies_what_is_not() -> None:
    queries = hand_table().queries
    ready, raw = Lengths().fit(queries), Lengths()
    assert Constant(embedder=ready).clone().embedder is ready
    copy = Constant(embedder=raw).clone().embedder
    assert copy is not raw
    assert repr(copy) == repr(raw)


def test_an_embedder_is_fitted_once() -> None:
    queries = hand_table().queries
    raw = Lengths()
    made = fitted(raw, queries)
    assert made.is_fitted
    assert not raw.is_fitted
    assert fitted(made, queries) is made


def test_a_class_that_learns_nothing_is_always_fitted_and_has_an_empty_state() -> None:
    router = Constant()
    assert router.is_fitted
    router.require_fitted("estimate")
    assert router.state() == State()
    router.restore(State())


@pytest.mark.parametrize(
    "state", [State(arrays={"x": np.zeros(1)}), State(values={"x": 1}), State(parts={"x": Constant()})]
)
def test_a_class_that_learns_nothing_refuses_a_learned_state(state: State) -> None:
    with pytest.raises(InputError, match=r"Constant.restore; allowed: an empty state; got: 'a learned one'"):
        Constant().restore(state)


def test_an_answer_before_fit_is_refused() -> None:
    with pytest.raises(NotFittedError, match=r"Lengths.embed was called before fit; call fit first"):
        Lengths().embed([])


def test_a_router_that_cannot_grow_says_so() -> None:
    table = hand_table()
    with pytest.raises(
        InputError, match=r"Constant cannot add 'elk' to a fitted pool \(.* has 5 rows\); fit again"
    ):
        Constant().fit(table).add_candidate(Candidate(model="elk"), table)


@pytest.mark.parametrize(
    ("contract", "room"), [(Embedder, "features"), (Router, "routers"), (Policy, "policies")]
)
def test_a_contract_sets_its_room_and_cannot_be_built(contract: type[Configured], room: str) -> None:
    assert contract.room == room
    with pytest.raises(TypeError, match="abstract"):
        contract()
