"""This module averages outcomes per cluster: models as vectors with one entry per cluster.

Source: A. Jitkrittum et al., "Universal Model Routing", arXiv 2502.08773, equation 8, for the vector of
mean errors per cluster; W. James, C. Stein, 1961, for the pull toward a common mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.means import column_mean, means_of
from turnout.routers.neighbours import Array
from turnout.routers.smoothing import standard_error, toward
from turnout.routers.targets import Targets


@dataclass(frozen=True, slots=True)
class ClusterMeans:
    """Averages of M candidates over K clusters; each row of K + 1 ends with the average over everything."""

    quality_KM: Floats
    error_KM: Floats
    """Standard error of the quality."""
    cost_KM: Floats
    """In the unit of the targets; NaN where unknown."""
    num_KM: Floats
    """Weight of the observed rows."""

    def mix(self, share_QK: Array) -> tuple[Floats, Floats, Floats]:
        """Return quality, spread and cost of queries by their shares in the clusters, each (Q, M).

        What is missing to a share of 1 goes to the average over everything, so a query of which nothing
        is known (a row of zeros) gets that. Errors of clusters add up as if they were one error.
        """
        rest_Q1 = np.maximum(1.0 - share_QK.sum(axis=1, keepdims=True), 0.0)
        weight_QK = np.concatenate([share_QK, rest_Q1], axis=1).astype(np.float64)
        return weight_QK @ self.quality_KM, weight_QK @ self.error_KM, weight_QK @ self.cost_KM

    def with_added(self, other: ClusterMeans) -> ClusterMeans:
        """Return these candidates, then the other's."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(ClusterMeans))
        return ClusterMeans(*(np.concatenate(pair, axis=1) for pair in pairs))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `cluster_means_from` reads it back."""
        return {f"cluster.{f.name}": getattr(self, f.name) for f in fields(ClusterMeans)}


def cluster_means_from(arrays: Mapping[str, np.ndarray]) -> ClusterMeans:
    """Rebuild from `ClusterMeans.arrays`."""
    return ClusterMeans(*(arrays[f"cluster.{f.name}"] for f in fields(ClusterMeans)))


def average(share_NK: Array, targets: Targets, prior: float) -> ClusterMeans:
    """Average each candidate per cluster, drawn toward its own mean by `prior` rows.

    `share_NK` says how much each row counts for each cluster. A cluster in which a candidate was not
    observed gets the candidate's mean, with the candidate's own deviation as its error if `prior` is 0.
    """
    means = means_of(targets)
    share_KN = share_NK.T.astype(np.float64)
    known_NM = np.isfinite(targets.quality_QM)
    value_NM = np.where(known_NM, targets.quality_QM, 0.0)
    total_KM, twice_KM = share_KN @ known_NM, np.square(share_KN) @ known_NM
    sum_KM = share_KN @ value_NM
    quality_KM = toward(total_KM, sum_KM, means.quality, prior)
    around_KM = share_KN @ np.square(value_NM) - 2.0 * quality_KM * sum_KM + quality_KM**2 * total_KM
    error_KM = standard_error(around_KM, total_KM, twice_KM, quality_KM, means, prior)
    has_cost_NM = np.isfinite(targets.cost_usd_QM)
    cost_KM = toward(
        share_KN @ has_cost_NM,
        share_KN @ np.where(has_cost_NM, targets.cost_usd_QM, 0.0),
        means.cost_usd,
        prior,
    )
    return ClusterMeans(
        np.vstack([quality_KM, means.quality]),
        np.vstack([error_KM, means.standard_error()]),
        np.vstack([cost_KM, means.cost_usd]),
        np.vstack([total_KM, means.num]),
    )


def left_out_error(share_NK: Floats, quality_NM: Floats, prior: float) -> float:
    """Return the mean squared error of each row's quality as predicted from the others of its cluster."""
    known_NM = np.isfinite(quality_NM)
    value_NM = np.where(known_NM, quality_NM, 0.0)
    mean_M = column_mean(quality_NM)
    total_NM = share_NK @ (share_NK.T @ known_NM) - known_NM
    sum_NM = share_NK @ (share_NK.T @ value_NM) - value_NM
    guess_NM = toward(np.maximum(total_NM, 0.0), sum_NM, mean_M, prior)
    return float(np.mean(np.square(guess_NM - quality_NM)[known_NM])) if known_NM.any() else 0.0
