"""This module measures options against single models on the same queries: means, variances, covariances.

An option is what a router gives at one price. Everything that is later promised or refused is a statement
about a paired difference between an option and a single model, and these moments are enough for all of
them, so a saved deployment needs no outcome table to answer a new goal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.policies.risk import RARE, honest_variance, mean_bound, student_p_value

_DEAREST = 1e100
"""A price, in quality per usd, beyond which a higher one changes nothing."""

_NAMES = (
    "count",  # queries on which both qualities are known
    "quality",  # mean of the option's
    "single_quality",
    "quality_var",
    "single_quality_var",
    "quality_cov",
    "usd_count",  # queries on which both costs are known
    "usd",
    "single_usd",
    "usd_var",
    "single_usd_var",
    "usd_cov",
    "cross_cov",  # of the quality difference with the cost difference
)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A mean difference, its variance and its number of queries."""

    mean: float
    variance: float
    count: int

    def low(self, confidence: float) -> float:
        """Return the one-sided lower bound."""
        return mean_bound(self.mean, self.variance, self.count, confidence=confidence, is_upper=False)

    def high(self, confidence: float) -> float:
        """Return the one-sided upper bound."""
        return mean_bound(self.mean, self.variance, self.count, confidence=confidence, is_upper=True)

    def p_value(self) -> float:
        """Return the one-sided p-value of "the true mean is below 0"."""
        error = float(np.sqrt(max(self.variance, 0.0) / max(self.count, 1)))
        return student_p_value(self.mean, error, self.count - 1)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Moments of K options against M single models, `moments_SKM` of shape (13, K, M)."""

    moments_SKM: Floats

    def at(self, name: str, option: int, single: int) -> float:
        """Return one moment by name."""
        return float(self.moments_SKM[_NAMES.index(name), option, single])

    def padded(self) -> Pairs:
        """Return the same with one single model more, of which nothing was measured."""
        nothing_SK1 = np.full((*self.moments_SKM.shape[:2], 1), np.nan)
        nothing_SK1[[_NAMES.index("count"), _NAMES.index("usd_count")]] = 0.0
        return Pairs(moments_SKM=np.concatenate([self.moments_SKM, nothing_SK1], axis=2))

    def joined(self, other: Pairs) -> Pairs:
        """Return the moments over the queries of both, which share none.

        Exact, but for `cross_cov` where a quality is known and its cost is not: its queries aren't counted
        apart, so the smaller of the two counts stands for them.
        """
        ours, theirs = (dict(zip(_NAMES, pairs.moments_SKM, strict=True)) for pairs in (self, other))
        quality = _pooled(*(tuple(part[name] for name in _NAMES[:6]) for part in (ours, theirs)))
        usd = _pooled(*(tuple(part[name] for name in _NAMES[6:12]) for part in (ours, theirs)))
        cross = [
            (
                np.minimum(part["count"], part["usd_count"]),
                part["quality"] - part["single_quality"],
                part["usd"] - part["single_usd"],
                part["cross_cov"],
            )
            for part in (ours, theirs)
        ]
        return Pairs(moments_SKM=np.stack([*quality, *usd, _pooled_cov(*cross)]))

    def quality(self, option: int, single: int, *, share: float = 1.0) -> Difference:
        """Return `quality[option] - share * quality[single]`."""
        variance = (
            self.at("quality_var", option, single)
            + share**2 * self.at("single_quality_var", option, single)
            - 2 * share * self.at("quality_cov", option, single)
        )
        mean = self.at("quality", option, single) - share * self.at("single_quality", option, single)
        count = int(self.at("count", option, single))
        return Difference(mean=mean, variance=honest_variance(variance, count, 1.0), count=count)

    def spend(self, option: int, single: int) -> Difference:
        """Return `usd[option]` of one query, over the queries on which both costs are known.

        Any column carries the option's own cost. Where `single`'s is not known as often as another's, that
        other stands in for it: a model without a price must not hide what the option spends.
        """
        count_M = self.moments_SKM[_NAMES.index("usd_count"), option]
        column = single if count_M[single] == count_M.max() else int(count_M.argmax())
        return Difference(
            mean=self.at("usd", option, column),
            variance=self.at("usd_var", option, column),
            count=int(count_M[column]),
        )

    def saved_usd(self, option: int, single: int) -> Difference:
        """Return `usd[single] - usd[option]` of one query."""
        variance = (
            self.at("usd_var", option, single)
            + self.at("single_usd_var", option, single)
            - 2 * self.at("usd_cov", option, single)
        )
        mean = self.at("single_usd", option, single) - self.at("usd", option, single)
        return Difference(mean=mean, variance=variance, count=int(self.at("usd_count", option, single)))

    def worth(self, option: int, single: int, price: float) -> Difference:
        """Return the difference of `quality - price * usd`; at an infinite price, the saved usd."""
        if price == 0.0:
            return self.quality(option, single)
        saved = self.saved_usd(option, single)
        if np.isinf(price):
            return saved
        # Its square must be a number; no quality makes up for a saving at such a price.
        price = min(price, _DEAREST)
        quality = self.quality(option, single)
        variance = (
            quality.variance + price**2 * saved.variance - 2 * price * self.at("cross_cov", option, single)
        )
        count = min(quality.count, saved.count)
        return Difference(mean=quality.mean + price * saved.mean, variance=variance, count=count)


def measure_pairs(
    quality_KQ: Floats,
    usd_KQ: Floats,
    quality_MQ: Floats,
    usd_MQ: Floats,
    *,
    reach: tuple[Floats, Floats] | None = None,
) -> Pairs:
    """Build `Pairs` from recorded outcomes; NaN was not observed and is left out pair by pair.

    `quality_KQ` and `usd_KQ` are the options', `quality_MQ` and `usd_MQ` the single models', on the same
    queries. A pair that shares none has a count of 0 and unknown means: no guard opens and no promise is
    made on it. `reach`, of the options (K, Q) and of the single models (M, Q), says how far one outcome can
    move a quality where something stands in for what was not observed; None is 1, the length of the scale.
    Raises `InputError` for fewer than 2 queries.
    """
    if quality_KQ.shape[1] < 2:
        raise InputError(
            sentence(
                "calibration: queries to measure on",
                allowed="at least 2",
                got=quality_KQ.shape[1],
                do="give a larger table",
            )
        )
    return _measure(quality_KQ, usd_KQ, quality_MQ, usd_MQ, reach)


def measure_singles(
    quality_MQ: Floats,
    usd_MQ: Floats,
    best: int,
    rival_MQ: Floats | None = None,
    *,
    reach_MQ: Floats | None = None,
) -> Pairs:
    """Build `Pairs` of shape (M, 2): every single model against the best one, and against itself.

    One that was hardly observed keeps no goal. `rival_MQ` are the qualities of those that they are compared
    with, where these are others.
    """
    rival_MQ = quality_MQ if rival_MQ is None else rival_MQ
    against = slice(best, best + 1)
    reach = None if reach_MQ is None else (reach_MQ, reach_MQ[against])
    against_best = _measure(quality_MQ, usd_MQ, rival_MQ[against], usd_MQ[against], reach)
    return Pairs(moments_SKM=np.concatenate([against_best.moments_SKM, _own(quality_MQ, usd_MQ)], axis=2))


def singles_of(pairs: Pairs, best: int) -> Pairs:
    """Return what `measure_singles` would from the (M, M) pairs that older artifacts hold."""
    own_SM = np.diagonal(pairs.moments_SKM, axis1=1, axis2=2)
    return Pairs(moments_SKM=np.stack([pairs.moments_SKM[:, :, best], own_SM], axis=2))


def _pooled(ours: tuple[Floats, ...], theirs: tuple[Floats, ...]) -> list[Floats]:
    """Return count, means, variances and covariance over two sets of queries from those of each."""
    (num_a, x_a, y_a, xx_a, yy_a, xy_a), (num_b, x_b, y_b, xx_b, yy_b, xy_b) = ours, theirs
    return [
        num_a + num_b,
        _pooled_mean((num_a, x_a), (num_b, x_b)),
        _pooled_mean((num_a, y_a), (num_b, y_b)),
        _pooled_cov((num_a, x_a, x_a, xx_a), (num_b, x_b, x_b, xx_b)),
        _pooled_cov((num_a, y_a, y_a, yy_a), (num_b, y_b, y_b, yy_b)),
        _pooled_cov((num_a, x_a, y_a, xy_a), (num_b, x_b, y_b, xy_b)),
    ]


def _pooled_mean(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> Floats:
    total = sum(num * np.nan_to_num(mean) for num, mean in (ours, theirs))
    num = ours[0] + theirs[0]
    mean: Floats = np.where(num > 0, total / np.maximum(num, 1.0), np.nan)
    return mean


def _pooled_cov(ours: tuple[Floats, ...], theirs: tuple[Floats, ...]) -> Floats:
    """Return the covariance from (count, mean of x, mean of y, covariance) of two sets."""
    (num_a, x_a, y_a, xy_a), (num_b, x_b, y_b, xy_b) = ours, theirs
    num = num_a + num_b
    apart = np.where((num_a > 0) & (num_b > 0), (x_a - x_b) * (y_a - y_b), 0.0)
    inside = sum(np.maximum(n - 1.0, 0.0) * np.nan_to_num(xy) for n, xy in ((num_a, xy_a), (num_b, xy_b)))
    cov: Floats = (inside + num_a * num_b / np.maximum(num, 1.0) * apart) / np.maximum(num - 1.0, 1.0)
    return cov


def _measure(
    quality_KQ: Floats,
    usd_KQ: Floats,
    quality_MQ: Floats,
    usd_MQ: Floats,
    reach: tuple[Floats, Floats] | None = None,
) -> Pairs:
    count_KM, mean_KM, single_KM, var_KM, single_var_KM, cov_KM = _moments(quality_KQ, quality_MQ)
    if reach is not None:
        of_options_K, of_singles_M = (_beyond(reach_KQ) for reach_KQ in reach)
        num_KM = np.maximum(count_KM, 1.0)
        var_KM = var_KM + of_options_K[:, None] / num_KM
        single_var_KM = single_var_KM + of_singles_M / num_KM
    usd = _moments(usd_KQ, usd_MQ)
    # cov(q - q', c - c') needs the four products on the queries where all four are known.
    known_K, known_M = np.isfinite(quality_KQ + usd_KQ), np.isfinite(quality_MQ + usd_MQ)
    cross_KM = _cross(quality_KQ, usd_KQ, quality_MQ, usd_MQ, known_K, known_M)
    stack = (count_KM, mean_KM, single_KM, var_KM, single_var_KM, cov_KM, *usd, cross_KM)
    return Pairs(moments_SKM=np.stack(stack))


def _beyond(reach_KQ: Floats) -> Floats:
    """Return what rare events add to a variance times the count, beyond a reach of 1; shape (K,).

    An outcome that stands for 1 / chance of them moves the mean by as much where it is met at last, and a
    sample that holds none shows nothing of it (`risk.honest_variance`).
    """
    known_KQ = np.isfinite(reach_KQ)
    square_K = np.where(known_KQ, reach_KQ**2, 0.0).sum(axis=1) / np.maximum(known_KQ.sum(axis=1), 1)
    beyond_K: Floats = RARE * np.maximum(square_K - 1.0, 0.0)
    return beyond_K


def _own(quality_MQ: Floats, usd_MQ: Floats) -> Floats:
    """Return the moments of every single model against itself, shape (13, M, 1)."""
    parts = []
    for x_MQ in (quality_MQ, usd_MQ):
        known_MQ = np.isfinite(x_MQ)
        num_M = known_MQ.sum(axis=1).astype(float)
        centre_M1 = _centre(x_MQ)
        x_MQ = np.where(known_MQ, x_MQ - centre_M1, 0.0)
        var_M = (x_MQ**2).sum(axis=1) / np.maximum(num_M - 1.0, 1.0)
        mean_M = np.where(num_M > 0, centre_M1[:, 0], np.nan)
        parts += [num_M, mean_M, mean_M, var_M, var_M, var_M]
    own_SM: Floats = np.stack([*parts, np.zeros(len(quality_MQ))])
    return own_SM[:, :, None]


def _moments(x_KQ: Floats, y_MQ: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Return counts, means, variances and covariances over the shared queries of each pair."""
    known_KQ, known_MQ = np.isfinite(x_KQ).astype(float), np.isfinite(y_MQ).astype(float)
    # Centring first keeps the products from losing digits; the shift cancels below.
    # Each row by its own mean, so that what is always the same, as a cost of zero, is exactly that.
    shift_x, shift_y = _centre(x_KQ), _centre(y_MQ)
    x_KQ, y_MQ = np.where(known_KQ > 0, x_KQ - shift_x, 0.0), np.where(known_MQ > 0, y_MQ - shift_y, 0.0)
    count_KM = known_KQ @ known_MQ.T
    safe_KM = np.maximum(count_KM, 1.0)
    mean_x_KM, mean_y_KM = x_KQ @ known_MQ.T / safe_KM, known_KQ @ y_MQ.T / safe_KM
    rest_KM = np.maximum(count_KM - 1.0, 1.0)
    var_x_KM = ((x_KQ**2) @ known_MQ.T - count_KM * mean_x_KM**2) / rest_KM
    var_y_KM = (known_KQ @ (y_MQ**2).T - count_KM * mean_y_KM**2) / rest_KM
    cov_KM = (x_KQ @ y_MQ.T - count_KM * mean_x_KM * mean_y_KM) / rest_KM
    unknown_KM = count_KM == 0
    mean_x_KM = np.where(unknown_KM, np.nan, mean_x_KM + shift_x)
    mean_y_KM = np.where(unknown_KM, np.nan, mean_y_KM + shift_y.T)
    return count_KM, mean_x_KM, mean_y_KM, np.maximum(var_x_KM, 0), np.maximum(var_y_KM, 0), cov_KM


def _cross(
    quality_KQ: Floats,
    usd_KQ: Floats,
    quality_MQ: Floats,
    usd_MQ: Floats,
    known_K: np.ndarray,
    known_M: np.ndarray,
) -> Floats:
    """Return cov(quality_k - quality_m, usd_k - usd_m) over the shared queries of each pair."""

    def filled(values: Floats, known: np.ndarray) -> Floats:
        return np.where(known, values - _centre(values), 0.0)

    a, b = filled(quality_KQ, known_K), filled(usd_KQ, known_K)
    c, d = filled(quality_MQ, known_M), filled(usd_MQ, known_M)
    in_K, in_M = known_K.astype(float), known_M.astype(float)
    count_KM = in_K @ in_M.T
    safe_KM = np.maximum(count_KM, 1.0)
    product_KM = (a * b) @ in_M.T - a @ d.T - b @ c.T + in_K @ (c * d).T
    mean_quality_KM = (a @ in_M.T - in_K @ c.T) / safe_KM
    mean_usd_KM = (b @ in_M.T - in_K @ d.T) / safe_KM
    cross: Floats = (product_KM - count_KM * mean_quality_KM * mean_usd_KM) / np.maximum(count_KM - 1.0, 1.0)
    return cross


def _centre(values_KQ: Floats) -> Floats:
    """Return the mean of the known values of each row, 0 where there is none; shape (K, 1)."""
    known_KQ = np.isfinite(values_KQ)
    total_K1 = np.where(known_KQ, values_KQ, 0.0).sum(axis=1, keepdims=True)
    low_K1 = np.where(known_KQ, values_KQ, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high_K1 = np.where(known_KQ, values_KQ, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    # A sum of equal values rounds; their mean shall not.
    mean_K1: Floats = np.where(
        low_K1 == high_K1, low_K1, total_K1 / np.maximum(known_KQ.sum(axis=1, keepdims=True), 1)
    )
    return mean_K1
