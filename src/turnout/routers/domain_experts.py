"""This module sends a query to the expert of its domain, which it reads from the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import UnknownNameError, did_you_mean, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_name, check_number
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
class DomainExpertsRouter(Router):
    """Classify the text into a domain, and predict each candidate's average on that domain.

    Domains are the tasks of the training queries. The task of a new query is never read: the classifier
    guesses it, and it never sees an outcome.

    Source
    ------
    T. Simonds et al., "MoDEM: Mixture of Domain Expert Models", arXiv 2410.07490 (S125): a domain
    classifier, then a fixed map from domain to expert.

    Differs
    -------
    The classifier is a softmax over the embedding in place of a fine-tuned DeBERTa. The map is read from
    the outcomes (the best average on the domain) unless `experts` states it.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    experts:
        Pairs (domain, candidate), a domain once: there this candidate stands first whatever was recorded,
        at its own average, and who would stand above it is held just below.
    is_soft:
        Whether to average over domains by their probabilities; False takes the most probable one.
    penalty:
        Ridge penalty of the classifier, above 0.
    prior:
        Weight of a candidate's overall mean in its average on a domain, in observations.

    Units
    -----
    Spread is the standard error of the domain's average.

    Cost
    ----
    O(F D + M) per query.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        experts: tuple[tuple[str, str], ...] = (),
        is_soft: bool = False,
        penalty: float = 0.1,
        prior: float = 10.0,
    ) -> None:
        if embedder is not None:
            check_kind("DomainExpertsRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.experts = tuple((domain, name) for domain, name in experts)
        for pair in self.experts:
            for name in pair:
                check_name("DomainExpertsRouter.experts", name)
        self.is_soft = bool(is_soft)
        self.penalty = check_number("DomainExpertsRouter.penalty", penalty, low=0.0, allow_low=False)
        self.prior = check_number("DomainExpertsRouter.prior", prior, low=0.0)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.domains_: Domains | None = None
        self.profiles_: Profiles | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether domains were learned."""
        return self.domains_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the domains and each candidate's average on them; returns self."""
        queries, targets, pool = read_pool(table)
        self._check_experts(pool)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        x_NF = np.asarray(self.embedder_.embed(queries), np.float64)
        self.domains_ = fit_domains(x_NF, queries, self.penalty)
        share_ND = self.domains_.labels(queries, x_NF)
        ratio_NM = targets.cost_usd_QM / pool.trend.predict(queries)
        self.profiles_ = profile(share_ND, targets, ratio_NM, pool.means, self.prior)
        self.pool_ = pool
        return self

    def place(self, queries: Sequence[Query]) -> list[str]:
        """Return the domain that each text is taken to belong to."""
        embedder, _, domains, _ = self._learned("place")
        x_QF = np.asarray(embedder.embed(queries), np.float64)
        return [domains.names[index] for index in domains.place(x_QF)]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's domain."""
        embedder, pool, domains, profiles = self._learned("estimate")
        x_QF = np.asarray(embedder.embed(queries), np.float64)
        certain_DD = np.eye(len(domains.names))
        share_QD = domains.shares(x_QF) if self.is_soft else certain_DD[domains.place(x_QF)]
        quality_DM = np.nan_to_num(self._promoted(profiles.quality_DM, domains, pool))
        error_DM = np.where(np.isfinite(profiles.error_DM), profiles.error_DM, 0.0)
        return pool.estimate(
            queries,
            share_QD @ quality_DM,
            share_QD @ error_DM,
            ratio_QM=np.where(np.isnan(pool.ratio_M), np.nan, share_QD @ np.nan_to_num(profiles.ratio_DM)),
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows, domain by domain; returns self."""
        embedder, pool, domains, profiles = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        share_ND = domains.labels(queries, np.asarray(embedder.embed(queries), np.float64))
        ratio_NM = targets.cost_usd_QM / added.trend.predict(queries)
        self.profiles_ = profiles.with_added(profile(share_ND, targets, ratio_NM, added.means, self.prior))
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return domains, averages and the embedder."""
        embedder, pool, domains, profiles = self._learned("state")
        return State(
            arrays={**pool.arrays(), **domains.arrays(), **profiles.arrays()},
            values={**pool.values(), "domains": list(domains.names)},
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over domains and averages."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        self.domains_ = domains_from(state.arrays, state.values["domains"])
        self.profiles_ = profiles_from(state.arrays)

    def _check_experts(self, pool: Pool) -> None:
        names = [candidate.name for candidate in pool.candidates]
        for _, name in self.experts:
            if name not in names:
                raise UnknownNameError(
                    sentence("DomainExpertsRouter.experts", got=name, do=did_you_mean(name, names))
                )

    def _promoted(self, quality_DM: Floats, domains: Domains, pool: Pool) -> Floats:
        """Return the averages with every named expert first on its domain; others are passed over."""
        names = [candidate.name for candidate in pool.candidates]
        named = [pair for pair in self.experts if pair[0] in domains.names]
        row = np.array([domains.names.index(domain) for domain, _ in named], np.int64)
        return held_below(quality_DM, row, np.array([names.index(name) for _, name in named], np.int64))

    def _learned(self, move: str) -> tuple[Embedder, Pool, Domains, Profiles]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.pool_ is not None
        assert self.domains_ is not None
        assert self.profiles_ is not None
        return self.embedder_, self.pool_, self.domains_, self.profiles_
