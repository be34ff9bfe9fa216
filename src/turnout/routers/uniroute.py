"""This module predicts from a candidate's mean quality per cluster of prompts: models as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_choice, check_count, check_kind, check_number
from turnout.routers.adam import softmax
from turnout.routers.cluster_map import learn_map
from turnout.routers.cluster_means import ClusterMeans, average, cluster_means_from, left_out_error
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.kmeans import closest, kmeans, one_hot
from turnout.routers.neighbours import Array
from turnout.routers.packing import below, under
from turnout.routers.targets import sampled

NUM_CLUSTERS = (5, 10, 20, 40, 80)


@final
class UniRouteRouter(Router):
    """Describe each candidate by its mean quality per cluster, and a query by its shares in the clusters.

    The estimate is the inner product `Phi(x) . Psi(m)`. A newcomer needs its own vector Psi and nothing
    else, so candidates with equal vectors get equal estimates, known or new.

    Source
    ------
    S82: A. Jitkrittum et al., "Universal Model Routing for Efficient LLM Inference", arXiv 2502.08773:
    section 5.1 (k-means: Phi is one-hot) and section 5.2 (learned map: Phi is a softmax, by log loss).

    Differs
    -------
    Psi is drawn toward the candidate's mean by `prior` prompts (0 is the published form, and an empty
    cluster then has the mean). The prompts of the table are the representative prompts; quality is graded;
    cost per cluster is learned the same way as a ratio to a line in the length of the prompt.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    cluster_map:
        `kmeans`, or `learned`: a linear softmax that starts at the k-means clusters.
    k:
        Number of clusters; None takes the one of least leave-one-out error of quality on the training table.
    prior:
        Weight of the candidate's mean, in prompts, at least 0.
    seed:
        Of the clusters and the order of descent.

    Units
    -----
    Spread is the standard error of the cluster means, mixed like the means.

    Cost
    ----
    O(K F + K M) per query; `add_candidate` embeds the probe and averages.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        cluster_map: Literal["kmeans", "learned"] = "kmeans",
        k: int | None = None,
        prior: float = 5.0,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("UniRouteRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.cluster_map = check_choice("UniRouteRouter.cluster_map", cluster_map, ("kmeans", "learned"))
        self.k = None if k is None else check_count("UniRouteRouter.k", k)
        self.prior = check_number("UniRouteRouter.prior", prior, low=0.0, high=1e9)
        self.seed = check_count("UniRouteRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.centre_KF: Array | None = None
        self.map_: dict[str, Array] = {}
        self.means_: ClusterMeans | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether clusters were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Cluster the prompts, average every candidate per cluster, and learn the map; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        self.centre_KF = self._cluster(lesson)
        self.means_ = self._average(lesson, self.centre_KF)
        self.map_ = {}
        if self.cluster_map == "learned":
            rng = make_rng(self.seed, "map")
            self.map_ = learn_map(lesson.x_NF, lesson.targets.quality_QM, self.centre_KF, self.means_, rng)
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the inner products of shares and vectors."""
        ground, means = self._learned("estimate")
        x_QF = ground.embed(queries)
        return ground.estimate(queries, *means.mix(self.shares(x_QF)), x_QF=x_QF)

    def shares(self, x_QF: Array) -> Array:
        """Return Phi of vectors, shape (Q, K); a vector of zeros is of no cluster."""
        assert self.centre_KF is not None
        is_blank_Q = ~x_QF.any(axis=1)
        if self.map_:
            share_QK = softmax(x_QF @ self.map_["weight"] + self.map_["bias"])
            share_QK[is_blank_Q] = 0.0
            return share_QK
        label_Q = np.where(is_blank_Q, -1, closest(x_QF, self.centre_KF))
        return one_hot(label_Q, self.centre_KF.shape[0])

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe prompts, cluster by cluster; returns self."""
        ground, means = self._learned("add_candidate")
        assert self.centre_KF is not None
        lesson = read_probe(ground, candidate, table)
        self.means_ = means.with_added(self._average(lesson, self.centre_KF))
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return clusters, map and vectors."""
        ground, means = self._learned("state")
        assert self.centre_KF is not None
        learned = under("map.", self.map_)
        return ground.state(self.embedder, {"centre": self.centre_KF, **learned, **means.arrays()})

    def restore(self, state: State) -> None:
        """Take over clusters, map and vectors."""
        self.ground_ = ground_from(state, self.embedder)
        self.centre_KF = state.arrays["centre"]
        self.means_ = cluster_means_from(state.arrays)
        self.map_ = below("map.", state.arrays)

    def _cluster(self, lesson: Lesson) -> Array:
        rng = make_rng(self.seed, "clusters")
        if self.k is not None:
            return kmeans(lesson.x_NF, self.k, rng)
        # No more clusters than would leave a handful of prompts in each.
        options = [k for k in NUM_CLUSTERS if 5 * k <= len(lesson.queries)] or [1]
        found = [kmeans(lesson.x_NF, k, rng) for k in options]
        errors = [self._error(lesson, centre_KF) for centre_KF in found]
        return found[int(np.argmin(errors))]

    def _error(self, lesson: Lesson, centre_KF: Array) -> float:
        share_NK = one_hot(closest(lesson.x_NF, centre_KF), centre_KF.shape[0])
        quality_NM = lesson.targets.quality_QM[:, sampled(lesson.names)]
        return left_out_error(share_NK.astype(np.float64), quality_NM, self.prior)

    def _average(self, lesson: Lesson, centre_KF: Array) -> ClusterMeans:
        share_NK = one_hot(closest(lesson.x_NF, centre_KF), centre_KF.shape[0])
        return average(share_NK, lesson.targets, self.prior)

    def _learned(self, move: str) -> tuple[Ground, ClusterMeans]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.means_ is not None
        return self.ground_, self.means_
