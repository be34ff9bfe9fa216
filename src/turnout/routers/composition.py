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
from turnout.core.validation import check_kind, check_number
from turnout.routers.composition_map import map_within_size, map_within_usd
from turnout.routers.domains import (
    Domains,
    Profiles,
    domains_from,
    fit_domains,
    held_below,
    profile,
    profiles_from,
)
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder


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
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.domains_: Domains | None = None
        self.profiles_: Profiles | None = None
        self.expert_D: Ints = np.zeros(0, np.int64)

    @property
    def is_fitted(self) -> bool:
        """Whether a map was found."""
        return self.domains_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the categories and find the map; returns self.

        Raises `InputError` where no map fits the budget.
        """
        queries, targets, pool = read_pool(table)
        embedder = fitted_embedder(self.embedder, queries)
        x_NF = np.asarray(embedder.embed(queries), np.float64)
        domains = fit_domains(x_NF, queries, self.penalty)
        share_ND = domains.labels(queries, x_NF)
        line_NM = pool.trend.predict(queries)
        profiles = profile(share_ND, targets, targets.cost_usd_QM / line_NM, pool.means, self.prior)
        weight_D = share_ND.mean(axis=0)
        mean_line_DM = share_ND.T @ line_NM / np.maximum(share_ND.sum(axis=0), 1e-12)[:, None]
        self.expert_D = self._map(pool, profiles, weight_D, mean_line_DM)
        self.embedder_, self.pool_, self.domains_, self.profiles_ = embedder, pool, domains, profiles
        return self

    def map(self) -> dict[str, str]:
        """Return the name of the expert of each category."""
        _, pool, domains, _ = self._learned("map")
        return {
            name: pool.candidates[expert].name
            for name, expert in zip(domains.names, self.expert_D.tolist(), strict=True)
        }

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's category, nobody above its expert."""
        embedder, pool, domains, profiles = self._learned("estimate")
        place_Q = domains.place(np.asarray(embedder.embed(queries), np.float64))
        held_DM = held_below(profiles.quality_DM, np.arange(len(domains.names)), self.expert_D)
        return pool.estimate(
            queries, held_DM[place_Q], profiles.error_DM[place_Q], ratio_QM=profiles.ratio_DM[place_Q]
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows; the map stays as it is; returns self."""
        embedder, pool, domains, profiles = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        share_ND = domains.labels(queries, np.asarray(embedder.embed(queries), np.float64))
        ratio_NM = targets.cost_usd_QM / added.trend.predict(queries)
        self.profiles_ = profiles.with_added(profile(share_ND, targets, ratio_NM, added.means, self.prior))
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return categories, averages, the map and the embedder."""
        embedder, pool, domains, profiles = self._learned("state")
        return State(
            arrays={**pool.arrays(), **domains.arrays(), **profiles.arrays(), "expert": self.expert_D},
            values={**pool.values(), "domains": list(domains.names)},
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over categories, averages and the map."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        self.domains_ = domains_from(state.arrays, state.values["domains"])
        self.profiles_ = profiles_from(state.arrays)
        self.expert_D = state.arrays["expert"]

    def _map(self, pool: Pool, profiles: Profiles, weight_D: Floats, line_DM: Floats) -> Ints:
        # In the order of the names, so that a tie falls the same way whatever the order of the pool.
        order = np.argsort([candidate.name for candidate in pool.candidates], kind="stable")
        value_DM = np.where(pool.known_M, weight_D[:, None] * profiles.quality_DM, np.nan)[:, order]
        if self.budget_usd is not None:
            usd_DM = (weight_D[:, None] * profiles.ratio_DM * line_DM)[:, order]
            return order[map_within_usd(value_DM, usd_DM, self.budget_usd)]
        if self.budget_params_b is not None:
            size_M = np.array([_size(pool.candidates[index]) for index in order])
            return order[map_within_size(value_DM, size_M, self.budget_params_b)]
        best_D: Ints = order[np.where(np.isnan(value_DM), -np.inf, value_DM).argmax(axis=1)]
        return best_D

    def _learned(self, move: str) -> tuple[Embedder, Pool, Domains, Profiles]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.pool_ is not None
        assert self.domains_ is not None
        assert self.profiles_ is not None
        return self.embedder_, self.pool_, self.domains_, self.profiles_


def _size(candidate: Candidate) -> float:
    size = candidate.descriptors.get("params_b", 0.0)
    return float(size) if isinstance(size, int | float) else 0.0
