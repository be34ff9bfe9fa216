"""This module predicts from the mean quality and cost of candidates in the clusters nearest to a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.adam import softmax
from turnout.routers.cluster_means import ClusterMeans, average, cluster_means_from
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.kmeans import closest, distances, kmeans, one_hot
from turnout.routers.neighbours import Array


@final
class AvengersRouter(Router):
    """Average each candidate per cluster, and mix the `num_near` clusters nearest to a query.

    Source
    ------
    Avengers: Y. Zhang et al., arXiv 2505.19797, section 3 (clusters and scores per cluster). Avengers-Pro:
    Y. Zhang et al., "Beyond GPT-5", arXiv 2508.12631, section 3 (several near clusters, and a mix of
    performance and efficiency), with the weights of the code in LLMRouterBench, `baselines/AvengersPro`.

    Differs
    -------
    `estimate` gives quality and cost apart, so that one dial serves every router; the published mix is
    `score`. Means are drawn toward the candidate's own by `prior` prompts; 0 is the published form. The
    answers of several candidates (Avengers' vote) are no business of a router.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    k:
        Number of clusters (64 in Avengers, 60 in Avengers-Pro, 25 in LLMRouterBench), fewer where that would
        leave less than five prompts in each.
    num_near:
        How many of the nearest clusters count (1 in Avengers, 4 in Avengers-Pro).
    sharpness:
        A near cluster weighs `exp(-sharpness * distance)`, with the distance between vectors of length 1;
        0 weighs all near ones alike, as the paper does. 9 is the value of the code.
    prior:
        Weight of the candidate's mean, in prompts, at least 0.
    seed:
        Of the clusters.

    Units
    -----
    Spread is the standard error of the cluster means, mixed like the means.

    Cost
    ----
    O(K F + K M) per query.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        k: int = 60,
        num_near: int = 4,
        sharpness: float = 9.0,
        prior: float = 2.0,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("AvengersRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.k = check_count("AvengersRouter.k", k)
        self.num_near = check_count("AvengersRouter.num_near", num_near)
        self.sharpness = check_number("AvengersRouter.sharpness", sharpness, low=0.0, high=1e6)
        self.prior = check_number("AvengersRouter.prior", prior, low=0.0, high=1e9)
        self.seed = check_count("AvengersRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.centre_KF: Array | None = None
        self.bill_KM: Floats = np.zeros((0, 0))
        self.means_: ClusterMeans | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether clusters were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Cluster the prompts and average every candidate per cluster; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        k = min(self.k, max(len(lesson.queries) // 5, 1))
        self.centre_KF = kmeans(lesson.x_NF, k, make_rng(self.seed, "clusters"))
        self.means_, self.bill_KM = self._average(lesson, self.centre_KF)
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the mix of the near clusters' means."""
        ground, means = self._learned("estimate")
        x_QF = ground.embed(queries)
        return ground.estimate(queries, *means.mix(self.shares(x_QF)), x_QF=x_QF)

    def score(self, queries: Sequence[Query], *, performance: float) -> Floats:
        """Return the published mix of performance and efficiency, shape (Q, M); NaN where either is unknown.

        `performance * p + (1 - performance) * (1 - q)`, where p and q are mean quality and mean cost,
        each scaled to [0, 1] over the pool inside each cluster, then mixed over the near clusters.
        Avengers-Pro chooses the largest. Where all candidates are alike, both are 0.

        The scale makes the trade-off depend on who is in the pool: a newcomer changes everybody's score.
        """
        share = check_number("AvengersRouter.score: performance", performance, low=0.0, high=1.0)
        ground, means = self._learned("score")
        good_KM, dear_KM = unit_range(means.quality_KM), unit_range(self.bill_KM)
        mixed_KM = share * good_KM + (1.0 - share) * (1.0 - dear_KM)
        share_QK = self.shares(ground.embed(queries))
        rest_Q1 = 1.0 - share_QK.sum(axis=1, keepdims=True)
        return ground.spread_out(np.concatenate([share_QK, rest_Q1], axis=1) @ mixed_KM, np.nan)

    def shares(self, x_QF: Array) -> Array:
        """Return the weights of the clusters, shape (Q, K); a vector of zeros is of no cluster."""
        assert self.centre_KF is not None
        away_QK = distances(x_QF, self.centre_KF)
        num = away_QK.shape[1]
        near = min(self.num_near, num)
        index = np.argpartition(away_QK, near - 1, axis=1)[:, :near]
        weight = softmax(-self.sharpness * np.sqrt(np.take_along_axis(away_QK, index, axis=1)))
        share_QK = np.zeros_like(away_QK)
        np.put_along_axis(share_QK, index, weight.astype(np.float32), axis=1)
        share_QK[~x_QF.any(axis=1)] = 0.0
        return share_QK

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe prompts, cluster by cluster; returns self."""
        ground, means = self._learned("add_candidate")
        assert self.centre_KF is not None
        lesson = read_probe(ground, candidate, table)
        added, bill_KM = self._average(lesson, self.centre_KF)
        self.means_ = means.with_added(added)
        self.bill_KM = np.concatenate([self.bill_KM, bill_KM], axis=1)
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the clusters and their averages."""
        ground, means = self._learned("state")
        assert self.centre_KF is not None
        learned: dict[str, np.ndarray] = {"centre": self.centre_KF, "bill": self.bill_KM}
        return ground.state(self.embedder, {**learned, **means.arrays()})

    def restore(self, state: State) -> None:
        """Take over clusters and averages."""
        self.ground_ = ground_from(state, self.embedder)
        self.centre_KF = state.arrays["centre"]
        self.bill_KM = state.arrays["bill"]
        self.means_ = cluster_means_from(state.arrays)

    def _average(self, lesson: Lesson, centre_KF: Array) -> tuple[ClusterMeans, Floats]:
        """Return the averages, and mean costs in USD, which unlike ratios compare across candidates."""
        share_NK = one_hot(closest(lesson.x_NF, centre_KF), centre_KF.shape[0])
        means = average(share_NK, lesson.targets, self.prior)
        return means, average(share_NK, lesson.targets_usd, self.prior).cost_KM

    def _learned(self, move: str) -> tuple[Ground, ClusterMeans]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.means_ is not None
        return self.ground_, self.means_


def unit_range(values_KM: Floats) -> Floats:
    """Scale each row to [0, 1] over its known values; a row without any range is 0."""
    if not values_KM.shape[1]:
        return values_KM
    known_KM = np.isfinite(values_KM)
    low_K1 = np.where(known_KM, values_KM, np.inf).min(axis=1, keepdims=True)
    high_K1 = np.where(known_KM, values_KM, -np.inf).max(axis=1, keepdims=True)
    range_K1 = high_K1 - low_K1
    has_range_K1 = np.isfinite(range_K1) & (range_K1 > 0)
    away_KM = values_KM - np.where(has_range_K1, low_K1, 0.0)
    scaled_KM: Floats = np.where(has_range_K1, away_KM / np.where(has_range_K1, range_K1, 1.0), 0.0)
    return scaled_KM
