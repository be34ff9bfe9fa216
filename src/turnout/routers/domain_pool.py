"""This module holds a pool known by domain: what recognises a domain, what each candidate gives on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.routers.domains import Domains, Profiles, domains_from, fit_domains, profile, profiles_from
from turnout.routers.evidence import Evidence, arrays_of, evidence_by, evidence_from
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import Targets


@dataclass(frozen=True, slots=True)
class DomainPool:
    """A pool, its embedder, the domains, and what each candidate gives on each of them."""

    embedder: Embedder
    pool: Pool
    domains: Domains
    profiles: Profiles
    evidence: Evidence | None = None
    """How much was observed on each domain; None in older artifacts."""

    def estimate(
        self, queries: Sequence[Query], share_QD: Floats, quality_QM: Floats, spread_QM: Floats
    ) -> Estimate:
        """Return the estimate; no spread is narrower than the evidence on the queries' domains allows."""
        if self.evidence is not None:
            spread_QM = self.evidence.widen_by(spread_QM, share_QD)
        return self.pool.estimate(queries, quality_QM, spread_QM, ratio_QM=self.ratios(share_QD))

    def embed(self, queries: Sequence[Query]) -> Floats:
        """Return the vectors in double precision, shape (Q, F)."""
        return np.asarray(self.embedder.embed(queries), np.float64)

    def ratios(self, share_QD: Floats) -> Floats:
        """Return costs over their lines, mixed over domains; NaN where no cost is known, shape (Q, M)."""
        return np.where(
            np.isnan(self.pool.charges.ratio), np.nan, share_QD @ np.nan_to_num(self.profiles.ratio_DM)
        )

    def with_added(self, candidate: Candidate, table: OutcomeTable, prior: float) -> DomainPool:
        """Return the pool with one more candidate, averaged over its probe rows domain by domain."""
        queries, targets, added = read_newcomer(table, candidate, self.pool)
        share_ND = self.domains.labels(queries, self.embed(queries))
        profiles = _average(share_ND, queries, targets, added, prior)
        evidence = self.evidence
        if evidence is not None:
            evidence = evidence.with_added(share_ND, targets.quality_QM)
        return replace(
            self,
            pool=self.pool.with_added(added),
            profiles=self.profiles.with_added(profiles),
            evidence=evidence,
        )

    def state(self, given: Embedder | None, arrays: dict[str, np.ndarray] | None = None) -> State:
        """Return the state of a router that holds this pool; `domain_pool_from` reads its part."""
        own = {**self.pool.arrays(), **self.domains.arrays(), **self.profiles.arrays()}
        return State(
            arrays={**own, **arrays_of(self.evidence), **(arrays or {})},
            values={**self.pool.values(), "domains": list(self.domains.names)},
            parts=embedder_parts(given, self.embedder),
        )


def domain_pool_from(state: State, given: Embedder | None) -> DomainPool:
    """Rebuild from `DomainPool.state`."""
    return DomainPool(
        restored_embedder(given, state.parts),
        pool_from(state.arrays, state.values),
        domains_from(state.arrays, state.values["domains"]),
        profiles_from(state.arrays),
        evidence_from(state.arrays),
    )


@dataclass(frozen=True, slots=True)
class DomainLesson:
    """A table read for its domains: N queries, and how much each belongs to each domain."""

    queries: list[Query]
    targets: Targets
    pool: Pool
    embedder: Embedder
    domains: Domains
    share_ND: Floats

    def learned(self, prior: float) -> DomainPool:
        """Average every candidate over every domain, drawn to its mean by `prior` observations."""
        profiles = _average(self.share_ND, self.queries, self.targets, self.pool, prior)
        evidence = evidence_by(self.share_ND, self.targets.quality_QM)
        return DomainPool(self.embedder, self.pool, self.domains, profiles, evidence)


def read_domains(
    table: OutcomeTable, given: Embedder | None, penalty: float, *, max_domains: int | None = None
) -> DomainLesson:
    """Learn to tell the tasks of a table apart; of more than `max_domains` the most frequent ones."""
    queries, targets, pool = read_pool(table)
    embedder = fitted_embedder(given, queries)
    x_NF = np.asarray(embedder.embed(queries), np.float64)
    known = queries if max_domains is None else _most_frequent(queries, max_domains)
    domains = fit_domains(x_NF, known, penalty)
    return DomainLesson(queries, targets, pool, embedder, domains, domains.labels(known, x_NF))


def _most_frequent(queries: Sequence[Query], max_domains: int) -> list[Query]:
    """Return the queries with the task kept where it is among the most frequent; ties go by name."""
    count = Counter(query.task for query in queries if query.task is not None)
    kept = set(sorted(count, key=lambda task: (-count[task], task))[:max_domains])
    return [query if query.task in kept else replace(query, task=None) for query in queries]


def _average(
    share_ND: Floats, queries: Sequence[Query], targets: Targets, pool: Pool, prior: float
) -> Profiles:
    ratio_NM = targets.cost_usd_QM / pool.charges.lines(queries)
    return profile(share_ND, targets, ratio_NM, pool.means, prior)
