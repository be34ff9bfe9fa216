"""This module ranks candidates by a Bradley-Terry model whose comparisons are weighted by similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_choice, check_count, check_kind, check_number
from turnout.routers.bradley_terry import all_pairs, outcome_of, rating_against, ratings, win_probability
from turnout.routers.evidence import Evidence, arrays_of, evidence_from, learn_evidence
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import seen_candidates
from turnout.routers.tiers import tiers_of

_CELLS = 1 << 22
_COIN = 0.25


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """Comparisons of a candidate that came later with what was expected of the T tiers."""

    x_NF: Array
    won_NT: Floats


@final
class SimilarityRankingRouter(Router):
    """Fit a Bradley-Terry model per query, in which comparisons on similar queries weigh more.

    The weight of a stored comparison is `gamma^(1 + S)`, with S the cosine of the two queries over the
    largest one. With the ratings xi of the fit, `P(m beats n) = 1 / (1 + exp(xi_n - xi_m))`.

    Source
    ------
    I. Ong et al., "RouteLLM", arXiv 2406.18665 (S91), section 4.2, similarity-weighted ranking: the
    weights, gamma = 10, and models in ten tiers.

    Differs
    -------
    Comparisons are made from recorded qualities. A win probability becomes a quality:
    `q_m = level + mean_n (2 P(m beats n) - 1)`, exact for graded comparisons where all are known, with the
    level of the pool around the query; members of a tier differ by their overall means. A prior of the
    overall means keeps ratings finite. Tiers by Lloyd's rounds, not by dynamic programming, and only from
    `num_tiers` + 1 candidates on.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    gamma:
        Base of the weight, at least 1; 1 weighs all alike, and the query does not matter.
    labels:
        `graded` compares by the difference of qualities; `sign` by win, tie or loss alone, as published.
    prior:
        Weight of the imagined comparisons at overall means, in comparisons of the most similar query.
    num_tiers:
        Candidates are grouped into at most so many tiers of about equal mean quality.
    max_rows:
        At most so many stored queries, spread evenly over the texts in alphabetical order.

    Units
    -----
    Spread is the standard error of a weighted mean of qualities under these weights.

    Cost
    ----
    O(N (F + T^2) + T^3) per query, for N stored queries and T tiers.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        gamma: float = 10.0,
        labels: Literal["graded", "sign"] = "graded",
        prior: float = 10.0,
        num_tiers: int = 10,
        max_rows: int = 2_000,
    ) -> None:
        if embedder is not None:
            check_kind("SimilarityRankingRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.gamma = check_number("SimilarityRankingRouter.gamma", gamma, low=1.0)
        self.labels = check_choice("SimilarityRankingRouter.labels", labels, ("graded", "sign"))
        self.prior = check_number("SimilarityRankingRouter.prior", prior, low=0.0, allow_low=False)
        self.num_tiers = check_count("SimilarityRankingRouter.num_tiers", num_tiers)
        self.max_rows = check_count("SimilarityRankingRouter.max_rows", max_rows)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.tier_M: Ints = np.zeros(0, np.int64)
        self.x_NF: Array = np.zeros((0, 0), np.float32)
        self.num_NP: Floats = np.zeros((0, 0))
        self.won_NP: Floats = np.zeros((0, 0))
        self.mean_T: Floats = np.zeros(0)
        self.level_N: Floats = np.zeros(0)
        self.newcomers_: tuple[_Newcomer, ...] = ()
        self.evidence_: Evidence | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether comparisons are stored."""
        return self.embedder_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Store the comparisons of the table; returns self."""
        queries, targets, pool = read_pool(table)
        seen_candidates(targets)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        self.pool_, self.newcomers_ = pool, ()
        self.tier_M = tiers_of(pool.means.quality, self.num_tiers)
        num_tiers = int(self.tier_M.max(initial=-1)) + 1
        quality_NT = np.stack(
            [row_mean(targets.quality_QM[:, self.tier_M == tier]) for tier in range(num_tiers)], axis=1
        )
        self.mean_T = column_mean(quality_NT)
        first, second = all_pairs(num_tiers)
        difference_NP = quality_NT[:, first] - quality_NT[:, second]
        useful = np.flatnonzero(np.isfinite(quality_NT).any(axis=1))
        rows = useful[np.unique(np.linspace(0, useful.size - 1, min(self.max_rows, useful.size)).astype(int))]
        known_NP = np.isfinite(difference_NP[rows])
        self.num_NP = known_NP.astype(np.float64)
        self.won_NP = np.where(known_NP, outcome_of(difference_NP[rows], self.labels), 0.0)
        # How much better than usual the whole pool did on a query: comparisons do not tell.
        self.level_N = np.nan_to_num(row_mean(quality_NT[rows] - self.mean_T))
        x_NF = np.asarray(self.embedder_.embed(queries), np.float32)
        self.x_NF, self.evidence_ = x_NF[rows], learn_evidence(x_NF, targets.quality_QM)
        return self

    def ratings(self, queries: Sequence[Query]) -> Floats:
        """Return the ratings of the tiers for each query, shape (Q, T), with mean 0."""
        embedder, _ = self._learned("ratings")
        return self._ratings(np.asarray(embedder.embed(queries), np.float32))[0]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return qualities that follow from each query's own ratings."""
        embedder, pool = self._learned("estimate")
        x_QF = np.asarray(embedder.embed(queries), np.float32)
        step = max(1, _CELLS // max(len(self.x_NF), 1))
        parts = [self._answer(x_QF[low : low + step], pool) for low in range(0, max(len(x_QF), 1), step)]
        quality_QM, spread_QM = (np.concatenate(part) for part in zip(*parts, strict=True))
        if self.evidence_ is not None:
            spread_QM = self.evidence_.widen(spread_QM, x_QF)
        return pool.estimate(queries, quality_QM, spread_QM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Compare one more candidate with what is expected of the others on its probe rows; returns self."""
        embedder, pool = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        x_NF = np.asarray(embedder.embed(queries), np.float32)
        difference_NT = targets.quality_QM - self._qualities(*self._ratings(x_NF))
        newcomer = _Newcomer(x_NF, outcome_of(difference_NT, self.labels))
        self.newcomers_ = (*self.newcomers_, newcomer)
        self.pool_ = pool.with_added(added)
        if self.evidence_ is not None:
            self.evidence_ = self.evidence_.with_texts(x_NF, targets.quality_QM)
        return self

    def state(self) -> State:
        """Return comparisons, tiers and the embedder."""
        embedder, pool = self._learned("state")
        own: dict[str, np.ndarray] = {
            "tier": self.tier_M,
            "x": self.x_NF,
            "num": self.num_NP,
            "won": self.won_NP,
            "mean": self.mean_T,
            "level": self.level_N,
        }
        late: dict[str, np.ndarray] = {
            f"{i}/{name}": array
            for i, one in enumerate(self.newcomers_)
            for name, array in (("x", one.x_NF), ("won", one.won_NT))
        }
        return State(
            arrays={**pool.arrays(), **own, **late, **arrays_of(self.evidence_)},
            values={**pool.values(), "num_newcomers": len(self.newcomers_)},
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over comparisons."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        self.tier_M, self.x_NF = state.arrays["tier"], state.arrays["x"]
        self.num_NP, self.won_NP = state.arrays["num"], state.arrays["won"]
        self.mean_T, self.level_N = state.arrays["mean"], state.arrays["level"]
        self.evidence_ = evidence_from(state.arrays)
        num = state.values["num_newcomers"]
        assert isinstance(num, int)
        self.newcomers_ = tuple(
            _Newcomer(state.arrays[f"{i}/x"], state.arrays[f"{i}/won"]) for i in range(num)
        )

    def _learned(self, move: str) -> tuple[Embedder, Pool]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.pool_ is not None
        return self.embedder_, self.pool_

    def _weights(self, x_QF: Array, x_NF: Array) -> Floats:
        """Return `gamma^(S - 1)`, shape (Q, N): the published weights over that of the most similar row."""
        cosine_QN = x_QF @ x_NF.T
        top_Q1 = cosine_QN.max(axis=1, keepdims=True, initial=0.0)
        # Nothing alike, or a text of which nothing is known: all rows weigh the same.
        share_QN = np.where(top_Q1 > 0.0, cosine_QN / np.maximum(top_Q1, 1e-9), 1.0)
        weight_QN = np.exp(np.float32(np.log(self.gamma)) * (np.maximum(share_QN, -1.0) - 1.0))
        # In double precision from here on, so that the order of a table's candidates does not show.
        return weight_QN.astype(np.float64)

    def _ratings(self, x_QF: Array) -> tuple[Floats, Floats]:
        """Return ratings of shape (Q, T) and the weights of the stored rows, (Q, N)."""
        weight_QN = self._weights(x_QF, self.x_NF)
        first, second = all_pairs(self.mean_T.size)
        prior_P = np.clip(outcome_of(self.mean_T[first] - self.mean_T[second], "graded"), 0.01, 0.99)
        num_QP = weight_QN @ self.num_NP + self.prior
        won_QP = weight_QN @ self.won_NP + self.prior * prior_P
        return ratings(num_QP, won_QP, self.mean_T.size), weight_QN

    def _level(self, weight_QN: Floats) -> Floats:
        """Return the mean quality of the tiers around each query, shape (Q, 1)."""
        above_Q1 = (weight_QN @ self.level_N)[:, None] / (weight_QN.sum(axis=1, keepdims=True) + self.prior)
        level_Q1: Floats = above_Q1 + self.mean_T.mean()
        return level_Q1

    def _qualities(self, xi_QT: Floats, weight_QN: Floats) -> Floats:
        """Return the quality of every tier, shape (Q, T)."""
        p_QTT = win_probability(xi_QT[:, :, None] - xi_QT[:, None, :])
        quality_QT: Floats = self._level(weight_QN) + (2.0 * p_QTT - 1.0).mean(axis=2)
        return quality_QT

    def _answer(self, x_QF: Array, pool: Pool) -> tuple[Floats, Floats]:
        xi_QT, weight_QN = self._ratings(x_QF)
        num = self.tier_M.size
        offset_M = pool.means.quality[:num] - np.where(self.tier_M >= 0, self.mean_T[self.tier_M], 0.0)
        quality_QM = self._qualities(xi_QT, weight_QN)[:, self.tier_M] + offset_M
        columns, errors = [quality_QM], [_error(weight_QN, pool, slice(0, num), self.prior)]
        for place, newcomer in enumerate(self.newcomers_, start=num):
            weight_QK = self._weights(x_QF, newcomer.x_NF)
            share = np.clip(outcome_of(pool.means.quality[place] - self.mean_T, "graded"), 0.01, 0.99)
            won_QT = weight_QK @ newcomer.won_NT + self.prior * share
            num_Q1 = weight_QK.sum(axis=1, keepdims=True) + self.prior
            xi_Q = rating_against(np.broadcast_to(num_Q1, won_QT.shape), won_QT, xi_QT)
            gain_Q = (2.0 * win_probability(xi_Q[:, None] - xi_QT) - 1.0).mean(axis=1)
            columns.append(self._level(weight_QN) + gain_Q[:, None])
            errors.append(_error(weight_QK, pool, slice(place, place + 1), self.prior))
        return np.concatenate(columns, axis=1), np.concatenate(errors, axis=1)


def row_mean(values_NK: Floats) -> Floats:
    """Return the mean of the known values of each row, NaN where there is none; shape (N,)."""
    return column_mean(values_NK.T)


def _error(weight_QN: Floats, pool: Pool, place: slice, prior: float) -> Floats:
    """Return the standard error of a weighted mean, shape (Q, M), one more outcome being a fair coin's."""
    num_M = pool.means.num[place]
    variance_M = (np.nan_to_num(pool.means.variance[place]) * num_M + _COIN) / (num_M + 1.0)
    total_Q1 = weight_QN.sum(axis=1, keepdims=True)
    twice_Q1 = (weight_QN**2).sum(axis=1, keepdims=True)
    # A candidate seen on a part of the rows has that part of the weight.
    part_M = np.clip(num_M / max(weight_QN.shape[1], 1), 0.0, 1.0)
    error_QM: Floats = np.sqrt(variance_M * (twice_Q1 * part_M + prior)) / (total_Q1 * part_M + prior)
    return error_QM
