"""This module predicts with one linear head per candidate for quality, cost and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_number
from turnout.routers.evidence import Evidence, arrays_of, evidence_from, learn_evidence
from turnout.routers.heads import Heads, group_from, learn_heads
from turnout.routers.length_trend import LengthTrend, fit_trend, trend_from
from turnout.routers.means import column_mean
from turnout.routers.packing import below, numbered
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import Targets, pack_candidates, probe_of, read_targets, unpack_candidates

_NUM_TARGETS = 3


@final
class RidgeRouter(Router):
    """Predict quality, cost and latency by ridge regression on the embedding, one head per candidate.

    Source
    ------
    A. E. Hoerl, R. W. Kennard, "Ridge regression", Technometrics 12(1), 1970, equation 2.1. The penalty
    by the leave-one-out identity of G. H. Golub, M. Heath, G. Wahba, Technometrics 21(2), 1979. The rule
    "linear score and linear cost per model" is that of R2-Router (arXiv 2602.02823) and CARROT (S57).

    Differs
    -------
    The intercept is the mean and is not penalised: an infinite penalty gives the candidates' means. A
    candidate's head learns from the rows where it was observed. Cost is learned as its ratio to the
    candidate's line in the length of the prompt (`length_trend`). That ratio and latency are learned as
    `log1p(value / mean)`, then multiplied by the one factor that makes their mean leave-one-out
    prediction equal their mean, so that expected spending is unbiased.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    penalties:
        Each head takes the one of least leave-one-out squared error on the training table.
    is_pooled:
        Whether qualities observed on the same rows are learned as their mean over the candidates plus
        what differs from it, each with its own penalty (`heads.pool`); False learns each alone.

    Units
    -----
    Spread is `sqrt(noise * leverage)`: the residual variance (leave-one-out) times how far the query lies
    from what was seen, and no narrower than `evidence` allows.

    Cost
    ----
    O(F^2 + F M) per query; fit O(N F^2 + F^3) per set of candidates observed on the same rows.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0),
        is_pooled: bool = True,
    ) -> None:
        if embedder is not None:
            check_kind("RidgeRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.is_pooled = bool(is_pooled)
        if not penalties:
            raise InputError(sentence("RidgeRouter.penalties", allowed="at least one number", got=penalties))
        self.penalties = tuple(
            check_number("RidgeRouter.penalties", penalty, low=0.0, allow_low=False) for penalty in penalties
        )
        self.candidates_: tuple[Candidate, ...] = ()
        self.embedder_: Embedder | None = None
        self.trend_: LengthTrend | None = None
        self.heads_ = Heads([], np.zeros(0))
        self.evidence_: Evidence | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether heads were learned."""
        return self.embedder_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Embed the queries of the table and fit the heads; returns self."""
        queries, targets = read_targets(table)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        self.candidates_ = table.candidates
        self.trend_ = fit_trend(queries, targets.cost_usd_QM)
        over = targets.over(self.trend_.predict(queries))
        x_NF = np.asarray(self.embedder_.embed(queries), np.float64)
        self.heads_ = self._learn(x_NF, over)
        self.evidence_ = learn_evidence(x_NF.astype(np.float32), targets.quality_QM)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the heads' predictions; quality is clipped to [0, 1]."""
        embedder, trend = self._learned("estimate")
        x_QF = np.asarray(embedder.embed(queries), np.float32)
        value_QC, error_QC = self.heads_.predict(x_QF)
        num = len(self.candidates_)
        quality_QM, cost_QM, latency_s_QM = (
            value_QC[:, i * num : (i + 1) * num] for i in range(_NUM_TARGETS)
        )
        spread_QM = error_QC[:, :num]
        if self.evidence_ is not None:
            spread_QM = self.evidence_.widen(spread_QM, x_QF)
        return make_estimate(
            self.candidates_,
            quality_QM,
            spread_QM=spread_QM,
            cost_usd_QM=cost_QM * trend.predict(queries),
            latency_s_QM=latency_s_QM,
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Fit the heads of one more candidate on its probe rows, the others untouched; returns self."""
        embedder, trend = self._learned("add_candidate")
        queries, targets = read_targets(probe_of(table, candidate, self.candidates_))
        line = fit_trend(queries, targets.cost_usd_QM)
        x_NF = np.asarray(embedder.embed(queries), np.float64)
        known, found = self.heads_, self._learn(x_NF, targets.over(line.predict(queries)))
        old, new = len(self.candidates_), len(self.candidates_) + 1
        # Columns are (quality, cost, latency) blocks of M: those behind the first block move up.
        moved = [
            replace(group, column=group.column // old * new + group.column % old) for group in known.groups
        ]
        added = [replace(group, column=group.column * new + old) for group in found.groups]
        blocks = zip(*(np.split(heads.unit_C, _NUM_TARGETS) for heads in (known, found)), strict=True)
        self.heads_ = Heads(moved + added, np.concatenate([part for block in blocks for part in block]))
        self.trend_ = trend.with_added(line)
        if self.evidence_ is not None:
            self.evidence_ = self.evidence_.with_texts(x_NF.astype(np.float32), targets.quality_QM)
        self.candidates_ = (*self.candidates_, candidate)
        return self

    def state(self) -> State:
        """Return the heads and the embedder."""
        embedder, trend = self._learned("state")
        arrays = numbered(group.arrays() for group in self.heads_.groups)
        return State(
            arrays={"unit": self.heads_.unit_C, **trend.arrays(), **arrays, **arrays_of(self.evidence_)},
            values={"candidates": pack_candidates(self.candidates_), "num_groups": len(self.heads_.groups)},
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over heads."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.candidates_ = unpack_candidates(state.values["candidates"])
        self.trend_ = trend_from(state.arrays)
        num_groups = state.values["num_groups"]
        assert isinstance(num_groups, int)
        groups = [group_from(below(f"{i}/", state.arrays)) for i in range(num_groups)]
        self.heads_ = Heads(groups, state.arrays["unit"])
        self.evidence_ = evidence_from(state.arrays)

    def _learn(self, x_NF: Floats, targets: Targets) -> Heads:
        y_NC = np.concatenate([targets.quality_QM, targets.cost_usd_QM, targets.latency_s_QM], axis=1)
        unit_C = np.nan_to_num(column_mean(y_NC), nan=0.0)
        unit_C[: targets.quality_QM.shape[1]] = 0.0
        num_pooled = targets.quality_QM.shape[1] if self.is_pooled else 0
        return Heads(learn_heads(x_NF, y_NC, unit_C, self.penalties, num_pooled=num_pooled), unit_C)

    def _learned(self, move: str) -> tuple[Embedder, LengthTrend]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.trend_ is not None
        return self.embedder_, self.trend_
