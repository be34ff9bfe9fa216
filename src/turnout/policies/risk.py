"""This module bounds what is promised: means from below and above, and a search that keeps its risk.

Sources: Angelopoulos et al., "Learn then Test" (arXiv 2110.01052), fixed-sequence testing; Bates et al.,
"Distribution-free risk-controlling prediction sets" (arXiv 2101.02703), Hoeffding-Bentkus p-value;
Angelopoulos et al., "Conformal risk control" (arXiv 2208.02814).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np

from turnout.core.outcomes import Floats
from turnout.core.validation import check_count, check_number


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t by the Cornish-Fisher expansion (error below 1e-3 from 10 on).

    Source: Abramowitz and Stegun 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    n = max(degrees, 1)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / n + g2 / n**2 + g3 / n**3


MIN_COUNT = 30
"""Queries below which nothing is promised: a t test on fewer breaks its word."""


RARE = 3.3
"""Times the square of an event's size over the number of queries: see `honest_variance`."""


def honest_variance(variance: float, count: int, spread: float) -> float:
    """Return the variance with what rare events may hide in `count` queries that did not show them.

    An event that happens to a share of 3/n of the queries is missed by n of them in one case of 20 (the rule
    of three), and then the sample variance says nothing of it. Adding `3.3 spread^2 / n` makes the 95 % bound
    of a mean at least as wide as that rule; `spread` is the most one query can differ.
    """
    return variance + RARE * spread**2 / max(count, 1)


def student_p_value(margin: float, error: float, degrees: int) -> float:
    """Return the one-sided p-value of "the true margin is below 0" from its estimate and standard error.

    Student's t goes through the normal by Wallace's transform (1959): within 1e-3 from 5 degrees on. An
    unknown margin, or fewer than `MIN_COUNT` queries, gives 1.
    """
    if math.isnan(margin) or degrees < MIN_COUNT - 1:
        return 1.0
    if error <= 0:
        return 0.0 if margin >= 0 else 1.0
    t = margin / error
    spread = math.sqrt(degrees * math.log1p(t * t / degrees))
    return NormalDist().cdf(-math.copysign((8 * degrees + 1) / (8 * degrees + 3) * spread, t))


def mean_bound(mean: float, variance: float, count: int, *, confidence: float, is_upper: bool) -> float:
    """Return the one-sided t bound of a mean from its sample mean and variance.

    The bound holds with `confidence` as `count` grows; it is infinite below `MIN_COUNT` values. Use
    `hoeffding_bentkus` where a finite-sample statement is needed.
    """
    if count < MIN_COUNT:
        return math.inf if is_upper else -math.inf
    width = student_quantile(confidence, count - 1) * math.sqrt(max(variance, 0.0) / count)
    return mean + width if is_upper else mean - width


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Return P(Bin(trials, probability) <= successes), summed in logarithms."""
    if successes >= trials:
        return 1.0
    if successes < 0:
        return 0.0
    if probability <= 0:
        return 1.0
    if probability >= 1:
        return 0.0
    k = np.arange(successes + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    log_choose = log_factorial[trials] - log_factorial[k] - log_factorial[trials - k]
    terms = log_choose + k * math.log(probability) + (trials - k) * math.log1p(-probability)
    top = terms.max()
    return float(min(1.0, math.exp(top) * np.exp(terms - top).sum()))


def hoeffding_bentkus(mean_loss: float, count: int, alpha: float) -> float:
    """Return a p-value for "the true mean loss is above alpha", losses in [0, 1], valid at every count.

    The smaller of Hoeffding's `exp(-n h(min(mean, alpha), alpha))` and Bentkus'
    `e P(Bin(n, alpha) <= ceil(n mean))` (arXiv 2101.02703, proposition 2 and section 3.1).
    """
    check_count("hoeffding_bentkus: count", count)
    check_number("hoeffding_bentkus: alpha", alpha, low=0.0, high=1.0, allow_low=False, allow_high=False)
    low = min(mean_loss, alpha)
    divergence = (1 - low) * math.log((1 - low) / (1 - alpha)) if low < 1 else 0.0
    if low > 0:
        divergence += low * math.log(low / alpha)
    bentkus = math.e * binomial_cdf(math.ceil(count * mean_loss), count, alpha)
    return min(1.0, math.exp(-count * divergence), bentkus)


def fixed_sequence(p_values: Iterable[float], delta: float) -> int:
    """Return how many hypotheses, tested in this order, are rejected before the first p above `delta`.

    With the order fixed in advance, the chance that any true one is among them is at most `delta`
    (arXiv 2110.01052, section 3.2).
    """
    rejected = 0
    for p_value in p_values:
        if not p_value <= delta:
            break
        rejected += 1
    return rejected


def conformal_threshold(loss_PQ: Floats, alpha: float) -> int:
    """Return how far down a list of ever riskier rules one may go: `(n mean + 1) / (n + 1) <= alpha`.

    `loss_PQ` of shape (P, Q) in [0, 1] must not fall along P (conformal risk control needs a monotone
    loss). The expected loss of the rule before the returned index is at most `alpha`, over calibration
    draws; 0 means that not even the first rule qualifies.
    """
    count = loss_PQ.shape[1]
    inflated_P = (loss_PQ.sum(axis=1) + 1.0) / (count + 1.0)
    above = np.flatnonzero(inflated_P > alpha)
    return int(above[0]) if above.size else int(inflated_P.size)
