"""This module says how little is known of a candidate: few outcomes, or none near the query.

A router's own standard error comes from its residuals. Where few outcomes were seen, or all alike, residuals
are small by luck; where none was seen near a query, they say nothing of it. So no spread is narrower than the
error of the plainest estimate: the candidate's own average, and how far it is off in the query's place,

    floor_qm^2 = v_m / n_m + sum_k p_qk / (1 / tau^2 + n_km / v_m)

with n outcomes of variance v (`means_of`, which counts one best and one worst outcome more), n_k of them in
place k, p_qk how much of the query lies there, and tau how far averages differ between places beyond chance.
How far others differ says nothing of a candidate that was kept from a place. Where it has fewer outcomes than
its share of all queries would bring, tau^2 is at least that of a quality of which nothing is known, 1 / 12,
by (1 - (n_k + 1) / (expected n_k + 1))^2: all of it where many were to be expected and none was seen, and
next to nothing where outcomes are missing at random. Places are clusters of training texts, or the tasks of
a router that knows tasks.

Source: D. V. Lindley, A. F. M. Smith, "Bayes estimates for the linear model", JRSS B 34(1), 1972, for the
variance of a group's mean around a common one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from turnout.core.outcomes import Floats
from turnout.core.rng import make_rng
from turnout.routers.group_prior import group_prior
from turnout.routers.kmeans import closest, half_squares, kmeans, one_hot
from turnout.routers.means import Means, means_of
from turnout.routers.neighbours import Array
from turnout.routers.packing import below
from turnout.routers.targets import Targets

LEAST_BETWEEN = 0.01
"""Variance between places that is never ruled out: a deviation of a tenth of the scale of quality."""
ANYTHING = 1.0 / 12.0
"""Variance of a quality of which nothing is known: anything in [0, 1] alike."""
_MAX_PLACES = 12
_ROWS = 20
"""Training rows per place, on average, at least."""
_SAMPLE = 2_000
MOST = 0.5
"""The widest spread: nothing between 0 and 1 deviates by more."""
_PREFIX = "evidence."


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where each of M candidates was observed, over K places."""

    centre_KF: Array
    """Centres of the clusters of texts; (K, 0) where the router names the places itself."""
    share_K: Floats
    """How much of the training queries lies in each place; sums to 1."""
    num_KM: Floats
    """Observed qualities."""
    total_M: Floats
    variance_M: Floats
    between: float
    """tau^2: the variance of averages between places."""
    _half_K: Array = field(init=False, repr=False)
    _square_PM: Floats = field(init=False, repr=False)
    """The squared floor in each place, and last that of a query of which nothing is known."""
    _most_M: Floats = field(init=False, repr=False)
    """The widest spread: nothing between 0 and 1 deviates by more than a half. A stranger's is infinite."""

    def __post_init__(self) -> None:
        square_KM = floor_square(self.variance_M, self.total_M, self.num_KM, self.between, self.share_K)
        square_KM = np.minimum(square_KM, MOST**2)
        square_PM = np.vstack([square_KM, self.share_K @ square_KM])
        object.__setattr__(self, "_half_K", half_squares(self.centre_KF))
        object.__setattr__(self, "_square_PM", square_PM)
        object.__setattr__(self, "_most_M", np.where(self.total_M > 0, MOST, np.inf))

    def widen(self, spread_QM: Floats, x_QF: Array) -> Floats:
        """Return the spread, no narrower than the floor nor wider than a half; `x_QF` are text vectors."""
        row_Q = closest(x_QF, self.centre_KF, self._half_K)
        row_Q[np.count_nonzero(x_QF, axis=1) == 0] = -1
        return self._held(spread_QM, self._square_PM[row_Q])

    def widen_by(self, spread_QM: Floats, share_QK: Floats) -> Floats:
        """Do the same for queries that lie in the places by shares; what lacks to 1 lies anywhere."""
        rest_Q1 = np.maximum(1.0 - share_QK.sum(axis=1, keepdims=True), 0.0)
        square_QM = share_QK @ self._square_PM[:-1] + rest_Q1 * self._square_PM[-1:]
        return self._held(spread_QM, square_QM)

    def _held(self, spread_QM: Floats, square_QM: Floats) -> Floats:
        wide_QM: Floats = np.minimum(np.maximum(spread_QM, np.sqrt(square_QM)), self._most_M)
        return wide_QM

    def with_added(self, share_NK: Floats, quality_N1: Floats) -> Evidence:
        """Return these candidates and one more, whose rows lie in the places by shares."""
        means = _means(quality_N1)
        num_K1 = share_NK.T @ np.isfinite(quality_N1)
        return Evidence(
            self.centre_KF,
            self.share_K,
            np.concatenate([self.num_KM, num_K1], axis=1),
            np.concatenate([self.total_M, means.num]),
            np.concatenate([self.variance_M, means.variance]),
            self.between,
        )

    def with_texts(self, x_NF: Array, quality_N1: Floats) -> Evidence:
        """Return these candidates and one more, whose rows have these vectors."""
        share_NK = one_hot(closest(x_NF, self.centre_KF), len(self.centre_KF))
        return self.with_added(share_NK.astype(np.float64), quality_N1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `evidence_from` reads it back."""
        own: dict[str, np.ndarray] = {
            "centre": self.centre_KF,
            "share": self.share_K,
            "num": self.num_KM,
            "total": self.total_M,
            "variance": self.variance_M,
            "between": np.array([self.between]),
        }
        return {f"{_PREFIX}{name}": array for name, array in own.items()}


def arrays_of(evidence: Evidence | None) -> dict[str, np.ndarray]:
    """Return its arrays; nothing of what an older artifact did not hold."""
    return {} if evidence is None else evidence.arrays()


def evidence_from(arrays: Mapping[str, np.ndarray]) -> Evidence | None:
    """Rebuild from `Evidence.arrays`; None from an older artifact, which holds none."""
    of = below(_PREFIX, arrays)
    if not of:
        return None
    num = of["num"], of["total"], of["variance"]
    return Evidence(of["centre"], of["share"], *num, float(of["between"][0]))


def learn_evidence(x_NF: Array, quality_NM: Floats) -> Evidence:
    """Find places among the texts, and count every candidate's outcomes there."""
    x_NF = np.ascontiguousarray(x_NF, np.float32)
    k = int(np.clip(len(x_NF) // _ROWS, 1, _MAX_PLACES))
    step = max(len(x_NF) // _SAMPLE, 1)
    centre_KF = kmeans(x_NF[::step], k, make_rng(0, "evidence"))
    share_NK = one_hot(closest(x_NF, centre_KF), len(centre_KF))
    return evidence_by(share_NK.astype(np.float64), quality_NM, centre_KF)


def evidence_by(share_NK: Floats, quality_NM: Floats, centre_KF: Array | None = None) -> Evidence:
    """Count every candidate's outcomes in places to which rows belong by shares."""
    means = _means(quality_NM)
    known_M = means.num > 0
    between = LEAST_BETWEEN
    if known_M.any():
        prior = group_prior(share_NK, quality_NM[:, known_M])
        between = max(float(means.variance[known_M].mean()) / prior, LEAST_BETWEEN)
    return Evidence(
        np.zeros((share_NK.shape[1], 0), np.float32) if centre_KF is None else centre_KF,
        share_NK.sum(axis=0) / max(float(share_NK.sum()), 1e-12),
        share_NK.T @ np.isfinite(quality_NM),
        means.num,
        means.variance,
        between,
    )


def floor_square(
    variance_M: Floats, total_M: Floats, num_KM: Floats, between: float, share_K: Floats | None = None
) -> Floats:
    """Return the square of the least spread where `num_KM` outcomes were seen; infinity for a stranger.

    `share_K` is how much of all queries lies in each place; None where places are not parts of a whole, so
    that how many outcomes were to be expected is not known.
    """
    between_KM = np.full(num_KM.shape, between)
    if share_K is not None:
        between_KM = np.maximum(between_KM, ANYTHING * lack_square(num_KM, share_K))
    with np.errstate(divide="ignore", invalid="ignore"):
        square_KM = variance_M / total_M + 1.0 / (1.0 / between_KM + num_KM / variance_M)
    return np.where(total_M > 0, square_KM, np.inf)


def lack_square(num_KM: Floats, share_K: Floats) -> Floats:
    """Return how far each candidate was kept from each place, in [0, 1]: next to 0 for holes at random."""
    expected_KM = share_K[:, None] * num_KM.sum(axis=0)
    lack_KM: Floats = np.maximum(1.0 - (num_KM + 1.0) / (expected_KM + 1.0), 0.0) ** 2
    return lack_KM


def _means(quality_NM: Floats) -> Means:
    unknown_NM = np.full_like(quality_NM, np.nan)
    return means_of(Targets(quality_NM, unknown_NM, unknown_NM))
