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
from turnout.routers.domain_pool import DomainPool, domain_pool_from, read_domains
from turnout.routers.domains import held_below


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
        at its own average, and who would stand above it is held just below. `fit` refuses an unknown one.
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
        self.known_: DomainPool | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether domains were learned."""
        return self.known_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the domains and each candidate's average on them; returns self.

        Raises `UnknownNameError` where `experts` names a domain or a candidate that the table does not have.
        """
        known = read_domains(table, self.embedder, self.penalty).learned(self.prior)
        self._check_experts(table.names, known.domains.names)
        self.known_ = known
        return self

    def place(self, queries: Sequence[Query]) -> list[str]:
        """Return the domain that each text is taken to belong to."""
        known = self._learned("place")
        return [known.domains.names[index] for index in known.domains.place(known.embed(queries))]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's domain."""
        known = self._learned("estimate")
        domains, x_QF = known.domains, known.embed(queries)
        certain_DD = np.eye(len(domains.names))
        share_QD = domains.shares(x_QF) if self.is_soft else certain_DD[domains.place(x_QF)]
        error_DM = np.where(np.isfinite(known.profiles.error_DM), known.profiles.error_DM, 0.0)
        quality_QM = share_QD @ np.nan_to_num(self._promoted(known))
        return known.estimate(queries, share_QD, quality_QM, share_QD @ error_DM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows, domain by domain; returns self."""
        self.known_ = self._learned("add_candidate").with_added(candidate, table, self.prior)
        return self

    def state(self) -> State:
        """Return domains, averages and the embedder."""
        return self._learned("state").state(self.embedder)

    def restore(self, state: State) -> None:
        """Take over domains and averages."""
        self.known_ = domain_pool_from(state, self.embedder)

    def _check_experts(self, names: Sequence[str], domains: Sequence[str]) -> None:
        for pair in self.experts:
            for what, name, known in zip(("domain", "candidate"), pair, (domains, names), strict=True):
                if name not in known:
                    raise UnknownNameError(
                        sentence(
                            f"DomainExpertsRouter.experts: a {what} that the table does not have",
                            got=name,
                            do=did_you_mean(name, known),
                        )
                    )

    def _promoted(self, known: DomainPool) -> Floats:
        """Return the averages with every named expert first on its domain; others are passed over."""
        names = [candidate.name for candidate in known.pool.candidates]
        order = {name: index for index, name in enumerate(known.domains.names)}
        named = [(order[domain], names.index(name)) for domain, name in self.experts]
        row_expert_K2 = np.array(named, np.int64).reshape(-1, 2)
        return held_below(known.profiles.quality_DM, row_expert_K2[:, 0], row_expert_K2[:, 1])

    def _learned(self, move: str) -> DomainPool:
        self.require_fitted(move)
        assert self.known_ is not None
        return self.known_
