"""This module estimates from a log what another policy would have given: off-policy values with intervals.

A log holds, for every row, what was chosen, with which probability, and what came of it. Another policy is
judged on it by weighing each row with `w = pi(chosen) / propensity`. Three estimators, each with its
influence function, whose variance gives the interval:

- `ips`: mean of `w r` (Horvitz and Thompson, JASA 47, 1952). Unbiased where every choice of the other policy
  had some chance in the log.
- `snips`: `sum w r / sum w` (Swaminathan and Joachims, NeurIPS 2015). Within the rewards, slightly biased.
- `dr`: mean of `v + w (r - q)` with a model's `q` for the logged choice and `v` for the other policy's own
  (Dudik, Langford and Li, ICML 2011). Right where the propensities are, or where the model is.

Where a choice of the other policy had no chance at all, no weighing can tell what it would have given: `ips`
and `snips` say None, and `dr` rests on its model there, which no interval covers. `support` is the share of
rows where that is not so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Bools, Floats
from turnout.core.validation import check_number, check_shape


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """N logged rows, and what another, deterministic policy would have chosen on them."""

    reward_N: Floats
    """What came of the logged choice."""
    propensity_N: Floats
    """Probability with which it was chosen, in (0, 1]."""
    same_N: Bools
    """Whether the other policy chooses the same."""
    model_N: Floats
    """A model's expectation for the logged choice."""
    target_N: Floats
    """The same model's expectation for the other policy's choice."""

    def __post_init__(self) -> None:
        for name in ("propensity_N", "same_N", "model_N", "target_N"):
            check_shape(f"Logged.{name}", getattr(self, name), "N", (self.reward_N.size,))
        if not ((self.propensity_N > 0.0) & (self.propensity_N <= 1.0)).all():
            got = float(self.propensity_N.min())
            raise InputError(
                sentence("Logged.propensity_N", allowed="(0, 1]", got=got, do="leave other rows out")
            )
        for name in ("reward_N", "model_N", "target_N"):
            if not np.isfinite(getattr(self, name)).all():
                do = "leave rows out where it is unknown"
                raise InputError(sentence(f"Logged.{name}", allowed="known numbers", got="NaN", do=do))

    @property
    def weight_N(self) -> Floats:
        """How much each row counts for the other policy."""
        weight_N: Floats = self.same_N / self.propensity_N
        return weight_N

    @property
    def support(self) -> float:
        """Share of rows where the other policy's choice had a chance; NaN without rows."""
        if not self.reward_N.size:
            return math.nan
        return float((self.same_N | (self.propensity_N < 1.0)).mean())

    @property
    def effective(self) -> float:
        """Effective number of rows, `(sum w)^2 / sum w^2`; 0 where none counts."""
        weight_N = self.weight_N
        squares = float((weight_N**2).sum())
        return float(weight_N.sum()) ** 2 / squares if squares else 0.0


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class OffPolicyValue:
    """An estimated mean with its interval."""

    mean: float
    low: float
    high: float

    def within(self, least: float, most: float) -> OffPolicyValue:
        """Return what is left of it in the range that a mean can have: weights alone know no range."""
        mean, low, high = (min(max(value, least), most) for value in (self.mean, self.low, self.high))
        return OffPolicyValue(mean=mean, low=low, high=high)


def ips(log: Logged, *, confidence: float = 0.95) -> OffPolicyValue | None:
    """Return the mean by inverse propensities; None without support or rows."""
    return _supported(log, confidence, lambda: log.weight_N * log.reward_N)


def snips(log: Logged, *, confidence: float = 0.95) -> OffPolicyValue | None:
    """Return the mean by self-normalised weights; None without support, rows or weight."""
    weight_N = log.weight_N
    total = float(weight_N.sum())
    if total == 0.0:
        return None
    mean = float(weight_N @ log.reward_N) / total
    # The influence of a row, by the delta method, around the mean itself.
    return _supported(
        log, confidence, lambda: mean + weight_N * (log.reward_N - mean) / (total / weight_N.size)
    )


def dr(log: Logged, *, confidence: float = 0.95) -> OffPolicyValue | None:
    """Return the doubly robust mean; None without rows. Without support it rests on the model in part."""
    if not log.reward_N.size:
        return None
    return _mean(log.target_N + log.weight_N * (log.reward_N - log.model_N), confidence)


def _supported(log: Logged, confidence: float, influence: Callable[[], Floats]) -> OffPolicyValue | None:
    if not log.reward_N.size or log.support < 1.0:
        return None
    return _mean(influence(), confidence)


def _mean(influence_N: Floats, confidence: float) -> OffPolicyValue:
    check_number("off-policy confidence", confidence, low=0.0, high=1.0, allow_low=False, allow_high=False)
    mean = float(influence_N.mean())
    if influence_N.size < 2:
        return OffPolicyValue(mean=mean, low=-math.inf, high=math.inf)
    width = NormalDist().inv_cdf(0.5 + confidence / 2) * float(influence_N.std(ddof=1))
    width /= math.sqrt(influence_N.size)
    return OffPolicyValue(mean=mean, low=mean - width, high=mean + width)
