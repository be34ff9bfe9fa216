"""This module learns model embeddings: a few directions of text, and a vector per candidate over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.factors import Directions, learn_factors
from turnout.routers.ground import ground_from, learn_ground, read_probe
from turnout.routers.logistic_vectors import Prior
from turnout.routers.neighbours import Array
from turnout.routers.placement import Items, Placement, place_all, placement_from

_PENALTY = 3.0


@final
class FactorisationRouter(Router):
    """Predict `sigmoid((x W) . v_m + c_m)`: the table of right and wrong answers as a matrix of low rank.

    The directions W are learned from all candidates together, so a candidate that was seen on one kind of
    query alone is predicted on the others from those it behaves like.

    Source
    ------
    R. Zhuang et al., "EmbedLLM", read in notes on its code: the matrix factorisation by cross entropy, with
    a vector per model and a projection of the query's embedding.

    Differs
    -------
    Queries are read by their text alone: the published table of question vectors cannot score a new text.
    Quality is graded, and both factors are penalised. Once W is learned every candidate's vector is its
    posterior mode over its own rows, with a normal prior around the pool's mean; a newcomer is treated alike.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_dims:
        Number of directions.
    prior:
        Precision of the prior of a vector, above 0.
    seed:
        Of the start and the order of descent.

    Units
    -----
    Spread is the standard error of the probability from the posterior, the directions taken as known.

    Cost
    ----
    O(F D + M D^2) per query; fit O(600 * 512 (F + M) D).
    """

    def __init__(
        self, *, embedder: Embedder | None = None, num_dims: int = 6, prior: float = 1.0, seed: int = 0
    ) -> None:
        if embedder is not None:
            check_kind("FactorisationRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_dims = check_count("FactorisationRouter.num_dims", num_dims, high=64)
        self.prior = check_number("FactorisationRouter.prior", prior, low=0.0, allow_low=False)
        self.seed = check_count("FactorisationRouter.seed", seed, low=0)
        self.directions_: Directions | None = None
        self.placement_: Placement | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether directions were learned."""
        return self.placement_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the directions, then place every candidate; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        rng = make_rng(self.seed, "factors")
        quality_NM = lesson.targets.quality_QM
        self.directions_, v_MD = learn_factors(lesson.x_NF, quality_NM, self.num_dims, _PENALTY, rng)
        prior = Prior(v_MD.mean(axis=0), self.prior)
        self.placement_ = place_all(ground, lesson, _items(self.directions_, lesson.x_NF), prior)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the probabilities of the factors."""
        directions, placed = self._learned("estimate")
        x_QF = placed.ground.embed(queries)
        return placed.estimate(queries, x_QF, _items(directions, x_QF))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Place one more candidate by its probe rows; returns self."""
        directions, placed = self._learned("add_candidate")
        lesson = read_probe(placed.ground, candidate, table)
        self.placement_ = placed.with_added(candidate, lesson, _items(directions, lesson.x_NF))
        return self

    def state(self) -> State:
        """Return directions and vectors."""
        directions, placed = self._learned("state")
        return placed.ground.state(self.embedder, {"weight": directions.weight_FD, **placed.arrays()})

    def restore(self, state: State) -> None:
        """Take over directions and vectors."""
        self.directions_ = Directions(state.arrays["weight"])
        self.placement_ = placement_from(state, ground_from(state, self.embedder), self.prior)

    def _learned(self, move: str) -> tuple[Directions, Placement]:
        self.require_fitted(move)
        assert self.directions_ is not None
        assert self.placement_ is not None
        return self.directions_, self.placement_


def _items(directions: Directions, x_QF: Array) -> Items:
    h_QD = directions.read(x_QF)
    return h_QD, np.zeros(len(h_QD))
