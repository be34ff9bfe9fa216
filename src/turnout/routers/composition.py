"""This module composes experts: a category from the text, and a map from categories within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.scoring import ROUNDING
from turnout.core.validation import check_kind, check_number
from turnout.routers.composition_map import map_within_size, map_within_usd
from turnout.routers.domain_pool import DomainPool, domain_pool_from, read_domains
from turnout.routers.domains import Profiles, held_below
from turnout.routers.pool import Pool

_UNPRICED = 1e300
"""Stands for an unknown cost among equally good experts: dearer than any, and still one of them."""


@final
class CompositionRouter(Router):
    """Classify the text into a category, and put the expert first that the budgeted map names for it.

    Categories are the tasks of the training queries. The map maximises the expected quality over them
    within the budget, exactly (`composition_map`); without a budget it is the best average per category.

    Source
    ------
    S. Jain et al., "Composition of Experts: A Modular Compound AI System Leveraging Large Language
    Models", arXiv 2412.01868 (S126): the two steps, and the map as an optimisation under a budget.

    Differs
    -------
    The classifier is a softmax over the embedding. A map must become numbers here: on its category the
    mapped expert keeps its average, and who would stand above it is held just below. Candidates without
    the descriptor `params_b` take no part of a parameter budget: they are taken to be hosted elsewhere.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    budget_params_b:
        Most billions of parameters that the distinct experts of the map may have together; None is no limit.
    budget_usd:
        Most USD that a query may cost on average over the training queries; None is no limit. One of the
        two at a time.
    penalty:
        Ridge penalty of the classifier, above 0.
    prior:
        Weight of a candidate's overall mean in its average on a category, in observations.

    Units
    -----
    Spread is the standard error of the category's average.

    Cost
    ----
    O(F D + M) per query. The map is found once, in `fit`.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        budget_params_b: float | None = None,
        budget_usd: float | None = None,
        penalty: float = 0.1,
        prior: float = 10.0,
    ) -> None:
        if embedder is not None:
            check_kind("CompositionRouter.embedder", embedder, Embedder)
        for name, budget in (("budget_params_b", budget_params_b), ("budget_usd", budget_usd)):
            if budget is not None:
                check_number(f"CompositionRouter.{name}", budget, low=0.0)
        if budget_params_b is not None and budget_usd is not None:
            raise InputError(
                sentence("CompositionRouter", allowed="a budget of parameters or of money", got="both")
            )
        self.embedder = embedder
        self.budget_params_b = budget_params_b
        self.budget_usd = budget_usd
        self.penalty = check_number("CompositionRouter.penalty", penalty, low=0.0, allow_low=False)
        self.prior = check_number("CompositionRouter.prior", prior, low=0.0)
        self.known_: DomainPool | None = None
        self.expert_D: Ints = np.zeros(0, np.int64)

    @property
    def is_fitted(self) -> bool:
        """Whether a map was found."""
        return self.known_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the categories and find the map; returns self.

        Raises `InputError` where no map fits the budget, or a budget of parameters meets no size.
        """
        lesson = read_domains(table, self.embedder, self.penalty)
        known, share_ND = lesson.learned(self.prior), lesson.share_ND
        line_NM = known.pool.charges.lines(lesson.queries)
        mean_line_DM = share_ND.T @ line_NM / np.maximum(share_ND.sum(axis=0), 1e-12)[:, None]
        self.expert_D = self._map(known.pool, known.profiles, share_ND.mean(axis=0), mean_line_DM)
        self.known_ = known
        return self

    def map(self) -> dict[str, str]:
        """Return the name of the expert of each category."""
        known = self._learned("map")
        return {
            name: known.pool.candidates[expert].name
            for name, expert in zip(known.domains.names, self.expert_D.tolist(), strict=True)
        }

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's category, nobody above its expert."""
        known = self._learned("estimate")
        of, place_Q = known.profiles, known.domains.place(known.embed(queries))
        held_DM = held_below(of.quality_DM, np.arange(len(known.domains.names)), self.expert_D)
        share_QD = np.eye(len(known.domains.names))[place_Q]
        return known.estimate(queries, share_QD, held_DM[place_Q], of.error_DM[place_Q])

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows; the map stays as it is; returns self."""
        self.known_ = self._learned("add_candidate").with_added(candidate, table, self.prior)
        return self

    def state(self) -> State:
        """Return categories, averages, the map and the embedder."""
        return self._learned("state").state(self.embedder, {"expert": self.expert_D})

    def restore(self, state: State) -> None:
        """Take over categories, averages and the map."""
        self.known_ = domain_pool_from(state, self.embedder)
        self.expert_D = state.arrays["expert"]

    def _map(self, pool: Pool, profiles: Profiles, weight_D: Floats, line_DM: Floats) -> Ints:
        # In the order of the names, so that a tie falls the same way whatever the order of the pool.
        order = np.argsort([candidate.name for candidate in pool.candidates], kind="stable")
        value_DM = np.where(pool.known_M, weight_D[:, None] * profiles.quality_DM, np.nan)[:, order]
        if self.budget_usd is not None:
            usd_DM = (weight_D[:, None] * profiles.ratio_DM * line_DM)[:, order]
            return order[map_within_usd(value_DM, usd_DM, self.budget_usd)]
        if self.budget_params_b is not None:
            _check_sizes(pool.candidates, self.budget_params_b)
            size_M = np.array([_size(pool.candidates[index]) for index in order])
            return order[map_within_size(value_DM, size_M, self.budget_params_b)]
        # Of equally good experts the cheaper, and of equally cheap ones the first name.
        known_DM = np.where(np.isnan(value_DM), -np.inf, value_DM)
        best_D1 = known_DM.max(axis=1, keepdims=True)
        is_best_DM = known_DM >= best_D1 - ROUNDING * np.abs(best_D1)
        usd_DM = np.nan_to_num((profiles.ratio_DM * line_DM)[:, order], nan=_UNPRICED)
        best_D: Ints = order[np.where(is_best_DM, usd_DM, np.inf).argmin(axis=1)]
        return best_D

    def _learned(self, move: str) -> DomainPool:
        self.require_fitted(move)
        assert self.known_ is not None
        return self.known_


def _check_sizes(candidates: Sequence[Candidate], budget: float) -> None:
    """Raise `InputError` where nobody states a size: then the budget would bind nothing, silently."""
    if not any("params_b" in candidate.descriptors for candidate in candidates):
        raise InputError(
            sentence(
                f"CompositionRouter.budget_params_b of {budget:g}",
                allowed="candidates of which one at least has the descriptor 'params_b'",
                got="none that has it",
                do="write billions of parameters into the candidates' descriptors, or leave the budget out",
            )
        )


def _size(candidate: Candidate) -> float:
    size = candidate.descriptors.get("params_b", 0.0)
    return float(size) if isinstance(size, int | float) else 0.0
