"""This module predicts from the most similar recorded queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_choice, check_count, check_kind, check_number
from turnout.routers.bank import Bank, bank_from, rounded
from turnout.routers.evidence import Evidence, arrays_of, evidence_from, learn_evidence
from turnout.routers.length_trend import LengthTrend, fit_trend, trend_from
from turnout.routers.means import means_of
from turnout.routers.neighbours import build_lists
from turnout.routers.packing import below, numbered
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.smoothing import Smoothing, stack
from turnout.routers.smoothing_choice import choose_smoothing
from turnout.routers.targets import (
    Targets,
    pack_candidates,
    probe_of,
    read_targets,
    sampled,
    unpack_candidates,
)

_EXACT_BELOW = 4_096
"""With fewer stored queries, brute force is as fast as lists."""


@final
class KNNRouter(Router):
    """Average the outcomes of the k most similar recorded queries, weighted by similarity.

    Qualities are averaged, not voted on: a tie between candidates stays a tie, partial credit counts,
    and every candidate gets a number. Each candidate's average is drawn toward its overall mean with
    the weight of `prior` neighbours, so that thin evidence says little.

    Source
    ------
    S176: Y. Li, "When simple kNN beats complex learned routers", arXiv 2505.12601, for the method; E. A.
    Nadaraya, "On estimating regression", 1964, for the weighted mean.

    Differs
    -------
    Regression on graded quality and cost with shrinkage, where the published routers classify the best
    model. A cell that was not observed does not count, for its candidate alone.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    k, prior:
        Neighbours, and the weight of the overall mean in neighbours; None chooses the pair by the
        leave-one-out squared error of quality on the training table.
    sharpness:
        Power of the similarity in the weight; 0 weighs all neighbours alike.
    floor:
        Similarity in [-1, 1) below which a neighbour does not count.
    search:
        `exact`, `lists` (inverted lists, approximate), or `auto`: lists from 4,096 stored queries on, where
        a query need not look into most of them.
    recall:
        Share of the true neighbours that `lists` must find on stored queries, in (0, 1].
    seed:
        Of the clustering and of the sample on which k and prior are chosen.

    Units
    -----
    Spread is the standard error of the average, no narrower than `evidence` allows. Cost is the
    candidate's line in the length of the prompt (`length_trend`) times the neighbours' mean ratio to that
    line; latency is the neighbours' arithmetic mean. Both are drawn toward the overall mean in the same way.

    Cost
    ----
    O(N F) per query for `exact`; about a tenth of it for `lists`.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        k: int | None = None,
        prior: float | None = None,
        sharpness: float = 3.0,
        floor: float = 0.0,
        search: Literal["auto", "exact", "lists"] = "auto",
        recall: float = 0.995,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("KNNRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.k = None if k is None else check_count("KNNRouter.k", k)
        self.prior = None if prior is None else check_number("KNNRouter.prior", prior, low=0.0)
        self.sharpness = check_number("KNNRouter.sharpness", sharpness, low=0.0)
        self.floor = check_number("KNNRouter.floor", floor, low=-1.0, high=1.0, allow_high=False)
        self.search = check_choice("KNNRouter.search", search, ("auto", "exact", "lists"))
        self.recall = check_number("KNNRouter.recall", recall, low=0.0, high=1.0, allow_low=False)
        self.seed = check_count("KNNRouter.seed", seed, low=0)
        self.candidates_: tuple[Candidate, ...] = ()
        self.embedder_: Embedder | None = None
        self.smoothing_: Smoothing | None = None
        self.trend_: LengthTrend | None = None
        self.banks_: list[Bank] = []
        self.evidence_: Evidence | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether queries are stored."""
        return bool(self.banks_)

    def fit(self, table: OutcomeTable) -> Self:
        """Embed and store the queries of the table; returns self."""
        queries, targets = read_targets(table)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        x_NF = np.ascontiguousarray(self.embedder_.embed(queries), np.float32)
        self.candidates_ = table.candidates
        self.smoothing_ = choose_smoothing(
            x_NF,
            targets.quality_QM[:, sampled(table.names)],
            k=self.k,
            prior=self.prior,
            sharpness=self.sharpness,
            floor=self.floor,
            rng=make_rng(self.seed, "smoothing"),
        )
        self.trend_ = fit_trend(queries, targets.cost_usd_QM)
        self.banks_ = [self._store(x_NF, targets.over(self.trend_.predict(queries)), self.smoothing_)]
        self.evidence_ = learn_evidence(x_NF, targets.quality_QM)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the weighted averages around each query."""
        embedder, smoothing, trend = self._learned("estimate")
        x_QF = np.asarray(embedder.embed(queries), np.float32)
        answers = [bank.answer(x_QF, smoothing) for bank in self.banks_]
        joined = answers[0] if len(answers) == 1 else stack(answers, axis=1)
        spread_QM = joined.spread_QM
        if self.evidence_ is not None:
            spread_QM = self.evidence_.widen(spread_QM, x_QF)
        return make_estimate(
            self.candidates_,
            joined.quality_QM,
            spread_QM=spread_QM,
            cost_usd_QM=joined.cost_QM * trend.predict(queries),
            latency_s_QM=joined.latency_s_QM,
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Store the probe queries of one more candidate beside the others; returns self.

        The new candidate is averaged over its own probe queries, the others over what they had.
        """
        embedder, smoothing, trend = self._learned("add_candidate")
        probe = probe_of(table, candidate, self.candidates_)
        queries, targets = read_targets(probe)
        x_NF = np.ascontiguousarray(embedder.embed(queries), np.float32)
        line = fit_trend(queries, targets.cost_usd_QM)
        self.trend_ = trend.with_added(line)
        self.banks_ = [*self.banks_, self._store(x_NF, targets.over(line.predict(queries)), smoothing)]
        if self.evidence_ is not None:
            self.evidence_ = self.evidence_.with_texts(x_NF, targets.quality_QM)
        self.candidates_ = (*self.candidates_, candidate)
        return self

    def state(self) -> State:
        """Return stored queries, outcomes and the embedder."""
        embedder, smoothing, trend = self._learned("state")
        arrays = numbered(bank.arrays() for bank in self.banks_)
        values = {
            "candidates": pack_candidates(self.candidates_),
            "num_banks": len(self.banks_),
            "k": smoothing.k,
            "prior": smoothing.prior,
        }
        return State(
            arrays={**arrays, **trend.arrays(), **arrays_of(self.evidence_)},
            values=values,
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over stored queries."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.candidates_ = unpack_candidates(state.values["candidates"])
        k, prior, num_banks = (state.values[name] for name in ("k", "prior", "num_banks"))
        assert isinstance(k, int)
        assert isinstance(prior, int | float)
        assert isinstance(num_banks, int)
        self.trend_ = trend_from(state.arrays)
        self.smoothing_ = Smoothing(k, float(prior), self.sharpness, self.floor)
        self.banks_ = [bank_from(below(f"{i}/", state.arrays)) for i in range(num_banks)]
        self.evidence_ = evidence_from(state.arrays)

    def _store(self, x_NF: np.ndarray, targets: Targets, smoothing: Smoothing) -> Bank:
        means = means_of(targets)
        x_NF, targets = rounded(x_NF, targets)
        is_large = x_NF.shape[0] >= _EXACT_BELOW
        if self.search == "exact" or (self.search == "auto" and not is_large):
            return Bank(x_NF, targets, means, None)
        rng = make_rng(self.seed, "lists")
        lists, row = build_lists(x_NF, k=smoothing.k, recall=self.recall, rng=rng)
        if self.search == "auto" and not lists.pay:
            return Bank(x_NF, targets, means, None)
        return Bank(lists.x_NF, targets.take(row), means, lists)

    def _learned(self, move: str) -> tuple[Embedder, Smoothing, LengthTrend]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.smoothing_ is not None
        assert self.trend_ is not None
        return self.embedder_, self.smoothing_, self.trend_
