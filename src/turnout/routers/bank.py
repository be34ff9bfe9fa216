"""This module averages the outcomes of neighbours: the mathematics of the nearest-neighbour router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.means import Means, means_from
from turnout.routers.neighbours import Array, Lists, lists_from, nearest
from turnout.routers.targets import Targets

_CELLS = 1 << 22
"""Cells (query, neighbour, candidate) that one step gathers; bounds memory."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How neighbours are weighed."""

    k: int
    """Neighbours that are looked at."""
    prior: float
    """Weight of the candidate's mean, in neighbours of similarity 1."""
    sharpness: float
    """Weight of a neighbour is its similarity above the floor to this power; 0 weighs all alike."""
    floor: float
    """Similarity below which a neighbour does not count."""

    def weigh(self, similarity_QK: Array) -> Floats:
        """Return the weights in [0, 1], float64 of shape (Q, K)."""
        similarity = np.minimum(similarity_QK.astype(np.float64), 1.0)
        above = np.maximum((similarity - self.floor) / (1.0 - self.floor), 0.0)
        weight_QK: Floats = above**self.sharpness * (similarity >= self.floor)
        return weight_QK


@dataclass(frozen=True, slots=True)
class Answer:
    """Smoothed outcomes, each of shape (Q, M)."""

    quality_QM: Floats
    spread_QM: Floats
    cost_usd_QM: Floats
    latency_s_QM: Floats


def stack(answers: Sequence[Answer], *, axis: int) -> Answer:
    """Return the answers under one another (axis 0) or side by side (axis 1)."""
    return Answer(*(np.concatenate([getattr(a, f.name) for a in answers], axis=axis) for f in fields(Answer)))


@dataclass(frozen=True, slots=True)
class Bank:
    """N stored queries with the outcomes of M candidates, NaN where not observed."""

    x_NF: Array
    targets: Targets
    means: Means
    lists: Lists | None
    """Inverted lists whose vectors are `x_NF`, or None for brute force."""

    def answer(self, x_QF: Array, smoothing: Smoothing) -> Answer:
        """Average the k most similar stored queries around each query."""
        num_candidates = max(self.means.quality.size, 1)
        step = max(1, _CELLS // (smoothing.k * num_candidates))
        parts = [self._answer(x_QF[low : low + step], smoothing) for low in range(0, max(len(x_QF), 1), step)]
        return parts[0] if len(parts) == 1 else stack(parts, axis=0)

    def _answer(self, x_QF: Array, smoothing: Smoothing) -> Answer:
        if self.lists is None:
            index_QK, similarity_QK = nearest(self.x_NF, x_QF, smoothing.k)
        else:
            index_QK, similarity_QK = self.lists.search(x_QF, smoothing.k)
        weight_QK = smoothing.weigh(similarity_QK)
        quality_QM, spread_QM = smooth_quality(
            weight_QK, self.targets.quality_QM[index_QK], self.means, smoothing.prior
        )
        return Answer(
            quality_QM,
            spread_QM,
            smooth(weight_QK, self.targets.cost_usd_QM[index_QK], self.means.cost_usd, smoothing.prior),
            smooth(weight_QK, self.targets.latency_s_QM[index_QK], self.means.latency_s, smoothing.prior),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `bank_from` reads it back."""
        stored: dict[str, np.ndarray] = {
            "x": self.x_NF,
            "quality": self.targets.quality_QM,
            "cost_usd": self.targets.cost_usd_QM,
            "latency_s": self.targets.latency_s_QM,
        }
        means = {f"mean.{name}": array for name, array in self.means.arrays().items()}
        lists = {} if self.lists is None else {f"list.{n}": a for n, a in self.lists.arrays().items()}
        return {**stored, **means, **lists}


def bank_from(arrays: Mapping[str, np.ndarray]) -> Bank:
    """Rebuild from `Bank.arrays`."""
    x_NF = arrays["x"]
    lists = {name.removeprefix("list."): a for name, a in arrays.items() if name.startswith("list.")}
    return Bank(
        x_NF,
        Targets(arrays["quality"], arrays["cost_usd"], arrays["latency_s"]),
        means_from({n.removeprefix("mean."): a for n, a in arrays.items() if n.startswith("mean.")}),
        lists_from(x_NF, lists) if lists else None,
    )


def smooth(weight_QK: Floats, value_QKM: Floats, mean_M: Floats, prior: float) -> Floats:
    """Return `(sum w v + prior mean) / (sum w + prior)` over the known values, shape (Q, M).

    Without any weight it is the mean; a candidate that was never observed stays NaN.
    """
    known_QKM = np.isfinite(value_QKM)
    total_QM, value_QM = _sums(weight_QK, value_QKM, known_QKM)
    return _toward(total_QM, value_QM, mean_M, prior)


def smooth_quality(weight_QK: Floats, value_QKM: Floats, means: Means, prior: float) -> tuple[Floats, Floats]:
    """Return smoothed quality and its standard error, both of shape (Q, M).

    The variance of one outcome is the weighted one around the answer, the prior counting as `prior`
    outcomes of the candidate's overall variance; the error is
    `sqrt(variance * (sum w^2 + prior)) / (sum w + prior)`. Without weight it is the overall deviation.
    """
    known_QKM = np.isfinite(value_QKM)
    total_QM, value_QM = _sums(weight_QK, value_QKM, known_QKM)
    _, square_QM = _sums(weight_QK, value_QKM * value_QKM, known_QKM)
    twice_QM, _ = _sums(weight_QK * weight_QK, value_QKM, known_QKM)
    quality_QM = _toward(total_QM, value_QM, means.quality, prior)
    # sum w (v - q)^2, expanded, around the answer q.
    around_QM = square_QM - 2.0 * quality_QM * value_QM + quality_QM**2 * total_QM
    pull_M = prior * means.variance
    weight_QM = total_QM + prior
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_QM = (around_QM + pull_M + prior * (means.quality - quality_QM) ** 2) / weight_QM
        error_QM = np.sqrt(np.maximum(variance_QM, 0.0) * (twice_QM + prior)) / weight_QM
    error_QM = np.where(weight_QM > 0, error_QM, np.sqrt(means.variance))
    return quality_QM, np.where(means.num > 0, error_QM, np.inf)


def _sums(weight_QK: Floats, value_QKM: Floats, known_QKM: np.ndarray) -> tuple[Floats, Floats]:
    """Return the sums over K of `w` and of `w v` where known, both of shape (Q, M)."""
    if known_QKM.all():
        total_QM = np.broadcast_to(weight_QK.sum(axis=1)[:, None], (len(weight_QK), value_QKM.shape[2]))
        return total_QM, np.matmul(weight_QK[:, None, :], value_QKM)[:, 0]
    total_QM = np.matmul(weight_QK[:, None, :], known_QKM.astype(np.float64))[:, 0]
    return total_QM, np.matmul(weight_QK[:, None, :], np.where(known_QKM, value_QKM, 0.0))[:, 0]


def _toward(total_QM: Floats, value_QM: Floats, mean_M: Floats, prior: float) -> Floats:
    weight_QM = total_QM + prior
    is_empty_QM = weight_QM <= 0.0
    pull_M = prior * mean_M if prior > 0.0 else np.zeros_like(mean_M)
    smoothed_QM = (value_QM + pull_M) / np.where(is_empty_QM, 1.0, weight_QM)
    return np.where(is_empty_QM | np.isnan(mean_M), mean_M, smoothed_QM)
