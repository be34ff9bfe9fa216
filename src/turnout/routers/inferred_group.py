"""This module predicts a group's average for a query whose group is told, or inferred from its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.domains import Domains, Profiles, domains_from, fit_domains, profile, profiles_from
from turnout.routers.group_prior import group_prior
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import Targets


@final
class InferredGroupRouter(Router):
    """Predict each candidate's average on the group of the query: told where it is told, inferred where not.

    `quality = sum_d p_d mean_d`, where p is certain for a query that names a group of the training table, and
    otherwise the probability of each group given the text. The spread knows both doubts:
    `spread^2 = sum_d p_d (error_d^2 + (mean_d - quality)^2)`.

    Source
    ------
    The baseline "best model per task" of C. Hu et al., "RouterBench", 2024, behind a classifier as in MoDEM
    (S125, arXiv 2410.07490). James and Stein, 1961, for the shrinkage of group means.

    Differs
    -------
    From `GroupMeanRouter`: it answers where nobody names the task. From `DomainExpertsRouter`, which follows
    MoDEM: a task that is named is believed, groups are averaged by probability, the doubt about the group
    is part of the spread, and how far means are drawn together is estimated (`group_prior`).

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    reads_task:
        Whether the task of a new query is believed; False infers every group from the text, which is how it
        is judged for traffic that comes without tasks.
    penalty:
        Ridge penalty of the classifier, above 0.
    prior:
        Weight of a candidate's overall mean in its average on a group, in observations; None estimates it.
    max_groups:
        The most frequent tasks become groups; a query of another one is placed by its text.

    Units
    -----
    Spread is the deviation of the mixture over groups, see above.

    Cost
    ----
    O(F D + D M) per query.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        reads_task: bool = True,
        penalty: float = 0.1,
        prior: float | None = None,
        max_groups: int = 100,
    ) -> None:
        if embedder is not None:
            check_kind("InferredGroupRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.reads_task = bool(reads_task)
        self.penalty = check_number("InferredGroupRouter.penalty", penalty, low=0.0, allow_low=False)
        self.prior = None if prior is None else check_number("InferredGroupRouter.prior", prior, low=0.0)
        self.max_groups = check_count("InferredGroupRouter.max_groups", max_groups)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.domains_: Domains | None = None
        self.profiles_: Profiles | None = None
        self.prior_ = 0.0

    @property
    def is_fitted(self) -> bool:
        """Whether groups were learned."""
        return self.domains_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn to recognise the groups, and each candidate's average on them; returns self."""
        queries, targets, pool = read_pool(table)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        x_NF = np.asarray(self.embedder_.embed(queries), np.float64)
        known = _with_groups(queries, self.max_groups)
        self.domains_ = fit_domains(x_NF, known, self.penalty)
        share_ND = self.domains_.labels(known, x_NF)
        self.prior_ = group_prior(share_ND, targets.quality_QM) if self.prior is None else self.prior
        self.profiles_ = self._average(share_ND, queries, targets, pool)
        self.pool_ = pool
        return self

    def shares(self, queries: Sequence[Query]) -> Floats:
        """Return the probability of each group, shape (Q, D), in the order of `groups`."""
        embedder, _, domains, _ = self._learned("shares")
        order = {name: index for index, name in enumerate(domains.names)}
        told_Q = np.full(len(queries), -1)
        if self.reads_task:
            told_Q = np.array([order.get(query.task or "", -1) for query in queries], np.int64)
        share_QD: Floats = np.eye(len(domains.names))[np.maximum(told_Q, 0)]
        asked = np.flatnonzero(told_Q < 0).tolist()
        if asked:
            x_QF = np.asarray(embedder.embed([queries[row] for row in asked]), np.float64)
            share_QD[asked] = domains.shares(x_QF)
        return share_QD

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in alphabetical order; one without a name where no training query had a task."""
        return self._learned("groups")[2].names

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's group, mixed by probability."""
        _, pool, _, profiles = self._learned("estimate")
        share_QD = self.shares(queries)
        mean_DM = np.nan_to_num(profiles.quality_DM)
        error_DM = np.where(np.isfinite(profiles.error_DM), profiles.error_DM, 0.0)
        quality_QM = share_QD @ mean_DM
        # sum p (error^2 + mean^2) - quality^2, which is the sum of the docstring; rounding may pass 0.
        inside_QM, around_QM = share_QD @ error_DM**2, share_QD @ mean_DM**2 - quality_QM**2
        return pool.estimate(
            queries,
            quality_QM,
            np.sqrt(inside_QM + np.maximum(around_QM, 0.0)),
            ratio_QM=np.where(np.isnan(pool.ratio_M), np.nan, share_QD @ np.nan_to_num(profiles.ratio_DM)),
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows, group by group; returns self."""
        embedder, pool, domains, profiles = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        share_ND = domains.labels(queries, np.asarray(embedder.embed(queries), np.float64))
        self.profiles_ = profiles.with_added(self._average(share_ND, queries, targets, added))
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return the classifier, the averages and the embedder."""
        embedder, pool, domains, profiles = self._learned("state")
        return State(
            arrays={
                **pool.arrays(),
                **domains.arrays(),
                **profiles.arrays(),
                "prior": np.array([self.prior_]),
            },
            values={**pool.values(), "groups": list(domains.names)},
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over a classifier and averages."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        self.domains_ = domains_from(state.arrays, state.values["groups"])
        self.profiles_ = profiles_from(state.arrays)
        self.prior_ = float(state.arrays["prior"][0])

    def _average(self, share_ND: Floats, queries: Sequence[Query], targets: Targets, pool: Pool) -> Profiles:
        ratio_NM = targets.cost_usd_QM / pool.trend.predict(queries)
        return profile(share_ND, targets, ratio_NM, pool.means, self.prior_)

    def _learned(self, move: str) -> tuple[Embedder, Pool, Domains, Profiles]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.pool_ is not None
        assert self.domains_ is not None
        assert self.profiles_ is not None
        return self.embedder_, self.pool_, self.domains_, self.profiles_


def _with_groups(queries: Sequence[Query], max_groups: int) -> list[Query]:
    """Return the queries with the task kept where it is among the most frequent; ties go by name."""
    count = Counter(query.task for query in queries if query.task is not None)
    kept = set(sorted(count, key=lambda task: (-count[task], task))[:max_groups])
    return [query if query.task in kept else replace(query, task=None) for query in queries]
