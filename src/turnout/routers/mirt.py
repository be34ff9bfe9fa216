"""This module reads a query as an item of a test, and a candidate as a vector of abilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.ground import ground_from, learn_ground, read_probe
from turnout.routers.item_response import Items, learn_items
from turnout.routers.logistic_vectors import Prior
from turnout.routers.neighbours import Array
from turnout.routers.placement import Placement, place_all, placement_from


@final
class MIRTRouter(Router):
    """Predict `sigmoid(a(x) . theta_m - b(x))`: a query is an item, a candidate a vector of abilities.

    Discrimination a and difficulty b are read from the text. Discriminations are above 0, so a candidate
    that is abler in every dimension is better on every query.
    A newcomer takes the test: its abilities are scored on its probe rows, the items as they are.

    Source
    ------
    W. Song et al., IRT-Router (MIRT), read in notes alone; M. D. Reckase, "Multidimensional item response
    theory", 2009, chapter 4, for the model; F. B. Baker, S.-H. Kim, 2004, chapter 7, for scoring.

    Differs
    -------
    Items are linear in the embedding through a softplus. Abilities are free vectors with a normal prior
    around the pool's mean, where IRT-Router reads them from descriptions of the models: a newcomer needs
    probes. Quality is graded. Everybody is scored again on the learned items, so old and new are alike.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_dims:
        Dimensions of ability.
    prior:
        Precision of the prior of abilities, above 0.
    penalty:
        Of the squared weights on the embedding, in units of one observed outcome's log loss, at least 0.
    seed:
        Of the start and the order of descent.

    Units
    -----
    Spread is the standard error of the probability from the test information, the items taken as known.

    Cost
    ----
    O(F D + M D^2) per query; fit O(600 * 512 (F + M) D).
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        num_dims: int = 4,
        prior: float = 1.0,
        penalty: float = 10.0,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("MIRTRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_dims = check_count("MIRTRouter.num_dims", num_dims, high=64)
        self.prior = check_number("MIRTRouter.prior", prior, low=0.0, allow_low=False)
        self.penalty = check_number("MIRTRouter.penalty", penalty, low=0.0)
        self.seed = check_count("MIRTRouter.seed", seed, low=0)
        self.items_: Items | None = None
        self.placement_: Placement | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether items were learned."""
        return self.placement_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the items, then score every candidate on them; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        rng = make_rng(self.seed, "items")
        quality_NM = lesson.targets.quality_QM
        self.items_, ability_MD = learn_items(lesson.x_NF, quality_NM, self.num_dims, self.penalty, rng)
        prior = Prior(ability_MD.mean(axis=0), self.prior)
        self.placement_ = place_all(ground, lesson, _as_items(self.items_, lesson.x_NF), prior)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the probabilities of the model."""
        items, placed = self._learned("estimate")
        x_QF = placed.ground.embed(queries)
        return placed.estimate(queries, x_QF, _as_items(items, x_QF))

    def items(self, queries: Sequence[Query]) -> tuple[Floats, Floats]:
        """Return the queries as items: discriminations (Q, D), above 0, and difficulties (Q,)."""
        items, placed = self._learned("items")
        return items.read(placed.ground.embed(queries))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Score one more candidate on its probe rows; returns self."""
        items, placed = self._learned("add_candidate")
        lesson = read_probe(placed.ground, candidate, table)
        self.placement_ = placed.with_added(candidate, lesson, _as_items(items, lesson.x_NF))
        return self

    def state(self) -> State:
        """Return items and abilities."""
        items, placed = self._learned("state")
        arrays: dict[str, np.ndarray] = {
            "slope": items.slope_FD,
            "slope_bias": items.slope_D,
            "hard": items.hard_F,
            "hard_bias": items.hard,
        }
        return placed.ground.state(self.embedder, {**arrays, **placed.arrays()})

    def restore(self, state: State) -> None:
        """Take over items and abilities."""
        of = state.arrays
        self.items_ = Items(of["slope"], of["slope_bias"], of["hard"], of["hard_bias"])
        self.placement_ = placement_from(state, ground_from(state, self.embedder), self.prior)

    def _learned(self, move: str) -> tuple[Items, Placement]:
        self.require_fitted(move)
        assert self.items_ is not None
        assert self.placement_ is not None
        return self.items_, self.placement_


def _as_items(items: Items, x_QF: Array) -> tuple[Floats, Floats]:
    a_QD, b_Q = items.read(x_QF)
    return a_QD, -b_Q
