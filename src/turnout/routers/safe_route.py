"""This module finds the queries that are hard for a small candidate and not for a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_name, check_number
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.logistic_heads import LogisticHeads, fit_logistic, logistic_heads_from
from turnout.routers.means import column_mean
from turnout.routers.packing import below, numbered


@final
class SafeRouteRouter(Router):
    """Predict for every candidate how often the small one fails where it succeeds, and the reverse.

    `hard` is the probability that the small candidate is wrong and the other right: only such a query is
    worth the larger one. Where both are right, or both wrong, nothing is won, whatever the difficulty.
    The estimate is `q_m = q_small + P(hard) - P(harm)`, an identity for the truths.

    Source
    ------
    S104: SafeRoute, arXiv 2502.12464, read in notes alone: a binary router with the label "the small guard
    is wrong and the large one right".

    Differs
    -------
    Logistic regressions on the embedding of the text in place of a Bayesian network on a guard model's hidden
    state; those can come in through an embedder. Any number of candidates, graded quality, and the harm
    of a switch beside its gain. The label is rare, so no accuracy is reported, and nothing is reweighted.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    small:
        Name of the small candidate; None is the one of least mean cost, or of least mean quality where no
        cost is known.
    penalty:
        Ridge penalty of the regressions, above 0.

    Units
    -----
    Spread adds the variances of the three probabilities.

    Cost
    ----
    O(F^2 + F M) per query.
    """

    def __init__(
        self, *, embedder: Embedder | None = None, small: str | None = None, penalty: float = 3.0
    ) -> None:
        if embedder is not None:
            check_kind("SafeRouteRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        if small is not None:
            check_name("SafeRouteRouter.small", small)
        self.small = small
        self.penalty = check_number("SafeRouteRouter.penalty", penalty, low=0.0, allow_low=False)
        self.ground_: Ground | None = None
        self.small_ = 0
        self.banks_: list[LogisticHeads] = []

    @property
    def is_fitted(self) -> bool:
        """Whether regressions were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the small candidate, and the gain and harm of every other; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        self.small_ = self._find_small(lesson)
        quality_NM = lesson.targets.quality_QM
        target_NC = np.concatenate([quality_NM, *_gain_and_harm(quality_NM, self._small(quality_NM))], axis=1)
        self.banks_ = [fit_logistic(lesson.x_NF, target_NC[:, self._kept(len(lesson.names))], self.penalty)]
        self.ground_ = ground
        return self

    def hard(self, queries: Sequence[Query]) -> Floats:
        """Return the probability that the small one is wrong and the other right, shape (Q, M)."""
        ground = self._learned("hard")
        return ground.spread_out(self._read(ground.embed(queries))[1], np.nan)

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the quality of the small candidate plus gain minus harm."""
        ground = self._learned("estimate")
        x_QF = ground.embed(queries)
        small_Q1, gain_QM, harm_QM, variance_QM = self._read(x_QF)
        return ground.estimate(queries, small_Q1 + gain_QM - harm_QM, np.sqrt(variance_QM), x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Learn gain and harm of one more candidate against what is expected of the small one."""
        ground = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        small_N1 = self._read(lesson.x_NF)[0]
        target_NC = np.concatenate(_gain_and_harm(lesson.targets.quality_QM, small_N1), axis=1)
        self.banks_ = [*self.banks_, fit_logistic(lesson.x_NF, target_NC, self.penalty)]
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the regressions."""
        ground = self._learned("state")
        arrays = numbered(bank.arrays() for bank in self.banks_)
        return ground.state(self.embedder, arrays, {"small": self.small_, "num_banks": len(self.banks_)})

    def restore(self, state: State) -> None:
        """Take over the regressions."""
        self.ground_ = ground_from(state, self.embedder)
        small, num = state.values["small"], state.values["num_banks"]
        assert isinstance(small, int)
        assert isinstance(num, int)
        self.small_ = small
        self.banks_ = [logistic_heads_from(below(f"{i}/", state.arrays)) for i in range(num)]

    def _find_small(self, lesson: Lesson) -> int:
        if self.small is not None:
            if self.small not in lesson.names:
                raise InputError(
                    sentence("SafeRouteRouter.small", got=self.small, allowed="an observed candidate")
                )
            return lesson.names.index(self.small)
        cost_M = column_mean(lesson.targets_usd.cost_usd_QM)
        quality_M = column_mean(lesson.targets.quality_QM)
        return int(np.nanargmin(cost_M) if np.isfinite(cost_M).any() else np.nanargmin(quality_M))

    def _small(self, quality_NM: Floats) -> Floats:
        return quality_NM[:, self.small_ : self.small_ + 1]

    def _kept(self, num: int) -> np.ndarray:
        """Return the columns that are learned: the small one's quality, then gains and harms of all."""
        return np.concatenate([[self.small_], np.arange(num, 3 * num)])

    def _read(self, x_QF: np.ndarray) -> tuple[Floats, Floats, Floats, Floats]:
        """Return small (Q, 1), gain, harm and variance (Q, M)."""
        p_QC, variance_QC = self.banks_[0].predict(x_QF)
        small_Q1, small_variance_Q1 = p_QC[:, :1], variance_QC[:, :1]
        parts = [(p_QC[:, 1:], variance_QC[:, 1:]), *(bank.predict(x_QF) for bank in self.banks_[1:])]
        gain, harm, variance = [], [], []
        for p_QH, variance_QH in parts:
            num = p_QH.shape[1] // 2
            gain.append(p_QH[:, :num])
            harm.append(p_QH[:, num:])
            variance.append(variance_QH[:, :num] + variance_QH[:, num:] + small_variance_Q1)
        # The small one against itself: neither gain nor harm.
        for block in (gain[0], harm[0]):
            block[:, self.small_] = 0.0
        return small_Q1, np.hstack(gain), np.hstack(harm), np.hstack(variance)

    def _learned(self, move: str) -> Ground:
        self.require_fitted(move)
        assert self.ground_ is not None
        return self.ground_


def _gain_and_harm(quality_NM: Floats, small_N1: Floats) -> tuple[Floats, Floats]:
    """Return the shares of (small wrong, other right) and of the reverse; their difference is exact."""
    return (1.0 - small_N1) * quality_NM, small_N1 * (1.0 - quality_NM)
