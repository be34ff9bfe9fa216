"""This module describes candidates by what they do on groups of probe prompts: a fingerprint each.

A fingerprint has one number per group: how far the candidate stands above the pool there, drawn toward how
far it stands above it overall, at length 1. So who has few probe rows has a fingerprint too, and candidates
that differ in level alone point the same way.

Source: S181 (arXiv 2508.12491), for a descriptor of every model by its behaviour on shared probes; its own
ones are token probabilities and perplexities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.kmeans import closest, kmeans, one_hot
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array

MAX_GROUPS = 16
_ROWS_PER_GROUP = 20
_PRIOR = 5.0
"""Rows' worth of the overall standing in that on a group."""


@dataclass(frozen=True, slots=True)
class Groups:
    """K groups of probe prompts, and what the pool gives on each."""

    centre_KF: Array
    level_K: Floats
    """Mean quality of the pool at the time of learning."""

    def fingerprints(self, x_NF: Array, quality_NM: Floats) -> Array:
        """Return the fingerprints, shape (M, K), each of length 1 or 0; NaN cells do not count."""
        share_NK = one_hot(closest(x_NF, self.centre_KF), self.level_K.size).astype(np.float64)
        known_NM = np.isfinite(quality_NM)
        above_NM = np.where(known_NM, quality_NM - (share_NK @ self.level_K)[:, None], 0.0)
        overall_M = above_NM.sum(axis=0) / np.maximum(known_NM.sum(axis=0), 1)
        num_KM = share_NK.T @ known_NM
        standing_KM = (share_NK.T @ above_NM + _PRIOR * overall_M) / (num_KM + _PRIOR)
        return unit_rows(standing_KM.T).astype(np.float32)


def learn_groups(x_NF: Array, quality_NM: Floats, rng: np.random.Generator) -> Groups:
    """Group the prompts by k-means and average the pool on each group."""
    num = min(MAX_GROUPS, max(x_NF.shape[0] // _ROWS_PER_GROUP, 1))
    centre_KF = kmeans(x_NF, num, rng)
    share_NK = one_hot(closest(x_NF, centre_KF), centre_KF.shape[0]).astype(np.float64)
    known_NM = np.isfinite(quality_NM)
    total_KM, num_KM = share_NK.T @ np.where(known_NM, quality_NM, 0.0), share_NK.T @ known_NM
    # Of the candidates' means, so that who was asked more counts no more.
    mean_KM = np.where(num_KM > 0, total_KM / np.maximum(num_KM, 1.0), np.nan)
    level_K = column_mean(mean_KM.T)
    usual = float(column_mean(column_mean(quality_NM)[:, None])[0])
    return Groups(centre_KF, np.where(np.isnan(level_K), usual, level_K))


def unit_rows(x_ND: np.ndarray) -> np.ndarray:
    """Return the rows at length 1; a row of zeros stays."""
    length_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    found: np.ndarray = x_ND / np.where(length_N1 > 0.0, length_N1, 1.0)
    return found
