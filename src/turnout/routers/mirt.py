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
from turnout.routers.ground import Ground, ground_from, learn_ground, read_probe
from turnout.routers.item_response import Items, learn_items
from turnout.routers.logistic_vectors import Prior, Vectors, place


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
        self.ground_: Ground | None = None
        self.items_: Items | None = None
        self.abilities_: Vectors | None = None
        self.centre_D: Floats = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether items were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the items, then score every candidate on them; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        quality_NM = lesson.targets.quality_QM
        rng = make_rng(self.seed, "items")
        self.items_, ability_MD = learn_items(lesson.x_NF, quality_NM, self.num_dims, self.penalty, rng)
        self.centre_D = ability_MD.mean(axis=0)
        self.abilities_ = self._score(self.items_, lesson.x_NF, quality_NM)
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the probabilities of the model."""
        ground, items, abilities = self._learned("estimate")
        a_QD, b_Q = items.read(ground.embed(queries))
        return ground.estimate(queries, *abilities.predict(a_QD, -b_Q))

    def items(self, queries: Sequence[Query]) -> tuple[Floats, Floats]:
        """Return the queries as items: discriminations (Q, D), above 0, and difficulties (Q,)."""
        ground, items, _ = self._learned("items")
        return items.read(ground.embed(queries))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Score one more candidate on its probe rows; returns self."""
        ground, items, abilities = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        self.abilities_ = abilities.with_added(self._score(items, lesson.x_NF, lesson.targets.quality_QM))
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return items and abilities."""
        ground, items, abilities = self._learned("state")
        arrays: dict[str, np.ndarray] = {
            "slope": items.slope_FD,
            "slope_bias": items.slope_D,
            "hard": items.hard_F,
            "hard_bias": items.hard,
            "ability": abilities.mean_MD,
            "covariance": abilities.covariance_MDD,
            "centre": self.centre_D,
        }
        return ground.state(self.embedder, arrays)

    def restore(self, state: State) -> None:
        """Take over items and abilities."""
        self.ground_ = ground_from(state, self.embedder)
        of = state.arrays
        self.items_ = Items(of["slope"], of["slope_bias"], of["hard"], of["hard_bias"])
        self.abilities_ = Vectors(of["ability"], of["covariance"])
        self.centre_D = of["centre"]

    def _score(self, items: Items, x_NF: np.ndarray, quality_NM: Floats) -> Vectors:
        a_ND, b_N = items.read(x_NF)
        return place(a_ND, -b_N, quality_NM, Prior(self.centre_D, self.prior))

    def _learned(self, move: str) -> tuple[Ground, Items, Vectors]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.items_ is not None
        assert self.abilities_ is not None
        return self.ground_, self.items_, self.abilities_
