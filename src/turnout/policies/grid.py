"""This module sweeps the price of money, which draws the frontier from best quality to cheapness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats
from turnout.core.validation import check_count


def sweep(
    policy: Policy,
    estimate: Estimate,
    prices: Sequence[float] | Floats,
    *,
    budget: Budget | None = None,
    rng: np.random.Generator,
) -> tuple[Decisions, ...]:
    """Return the policy's decisions at each price, in order; `budget` holds the caps."""
    base = Budget() if budget is None else budget
    return tuple(policy.decide(estimate, base.at_price(float(price)), rng) for price in prices)


def price_grid(estimate: Estimate, *, num: int = 50) -> Floats:
    """Return `num` increasing prices from 0 to infinity at which choices change about evenly often.

    The prices between the ends are quantiles of the exchange rates at which queries leave their best
    candidate for a cheaper one, `(quality_best - quality_m) / (usd_best - usd_m)`: a grid in the data's
    own units, so that no user meets a raw lambda. Without costs the grid is the price 0 alone.
    """
    check_count("price_grid: num", num, low=2)
    rates = exchange_rates(estimate)
    if not rates.size:
        return np.zeros(1)
    inner = np.unique(np.quantile(rates, np.linspace(0.0, 1.0, max(num - 2, 1))))
    return np.concatenate([[0.0], inner[inner > 0], [np.inf]])


def exchange_rates(estimate: Estimate) -> Floats:
    """Return the positive rates, in quality per USD, between each query's best and its cheaper ones."""
    usable_QM = estimate.allowed_QM & np.isfinite(estimate.cost_usd_QM) & np.isfinite(estimate.quality_QM)
    if not usable_QM.any():
        return np.zeros(0)
    key_QM = np.where(usable_QM, estimate.quality_QM, -np.inf)
    best_Q = key_QM.argmax(axis=1)
    rows = np.arange(best_Q.size)
    saved_QM = estimate.cost_usd_QM[rows, best_Q][:, None] - estimate.cost_usd_QM
    lost_QM = estimate.quality_QM[rows, best_Q][:, None] - estimate.quality_QM
    keep_QM = usable_QM & usable_QM[rows, best_Q][:, None] & (saved_QM > 0) & (lost_QM > 0)
    rates: Floats = lost_QM[keep_QM] / saved_QM[keep_QM]
    return rates
