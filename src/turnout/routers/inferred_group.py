"""This module predicts a group's average for a query whose group is told, or inferred from its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.domain_pool import DomainPool, domain_pool_from, read_domains
from turnout.routers.group_prior import group_prior


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
        self.known_: DomainPool | None = None
        self.prior_ = 0.0

    @property
    def is_fitted(self) -> bool:
        """Whether groups were learned."""
        return self.known_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn to recognise the groups, and each candidate's average on them; returns self."""
        lesson = read_domains(table, self.embedder, self.penalty, max_domains=self.max_groups)
        quality_NM = lesson.targets.quality_QM
        self.prior_ = group_prior(lesson.share_ND, quality_NM) if self.prior is None else self.prior
        self.known_ = lesson.learned(self.prior_)
        return self

    def shares(self, queries: Sequence[Query]) -> Floats:
        """Return the probability of each group, shape (Q, D), in the order of `groups`."""
        known = self._learned("shares")
        order = {name: index for index, name in enumerate(known.domains.names)}
        told_Q = np.full(len(queries), -1)
        if self.reads_task:
            told_Q = np.array([order.get(query.task or "", -1) for query in queries], np.int64)
        share_QD: Floats = np.eye(len(known.domains.names))[np.maximum(told_Q, 0)]
        asked = np.flatnonzero(told_Q < 0).tolist()
        if asked:
            share_QD[asked] = known.domains.shares(known.embed([queries[row] for row in asked]))
        return share_QD

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in alphabetical order; one without a name where no training query had a task."""
        return self._learned("groups").domains.names

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on each query's group, mixed by probability."""
        known, share_QD = self._learned("estimate"), self.shares(queries)
        mean_DM = np.nan_to_num(known.profiles.quality_DM)
        error_DM = np.where(np.isfinite(known.profiles.error_DM), known.profiles.error_DM, 0.0)
        quality_QM = share_QD @ mean_DM
        # sum p (error^2 + mean^2) - quality^2, which is the sum of the docstring; rounding may pass 0.
        inside_QM, around_QM = share_QD @ error_DM**2, share_QD @ mean_DM**2 - quality_QM**2
        spread_QM = np.sqrt(inside_QM + np.maximum(around_QM, 0.0))
        return known.estimate(queries, share_QD, quality_QM, spread_QM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows, group by group; returns self."""
        self.known_ = self._learned("add_candidate").with_added(candidate, table, self.prior_)
        return self

    def state(self) -> State:
        """Return the classifier, the averages and the embedder."""
        return self._learned("state").state(self.embedder, {"prior": np.array([self.prior_])})

    def restore(self, state: State) -> None:
        """Take over a classifier and averages."""
        self.known_ = domain_pool_from(state, self.embedder)
        self.prior_ = float(state.arrays["prior"][0])

    def _learned(self, move: str) -> DomainPool:
        self.require_fitted(move)
        assert self.known_ is not None
        return self.known_
