"""This module sweeps the price of money, which draws the frontier from best quality to cheapness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints
from turnout.core.scoring import LEAST_PRICE
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
    """Return up to `num` increasing prices, 0 and infinity at the ends, evenly spread over the choices.

    The prices between the ends are quantiles of the exchange rates at which queries leave one candidate
    for a cheaper one: a grid in the data's own units, so that no user meets a raw lambda. Where some
    candidates have a known cost and others none, the least price stands beside 0: the best quality among
    those of known cost. Without costs the grid is the price 0 alone.
    """
    check_count("price_grid: num", num, low=2)
    rates, least = exchange_rates(estimate), _least(estimate)
    if not rates.size and not least:
        return np.zeros(1)
    size = max(num - 2 - len(least), 1)
    inner = np.quantile(rates, (np.arange(size) + 0.5) / size) if rates.size else rates
    return np.concatenate([[0.0], np.unique([*least, *inner]), [np.inf]])


def exchange_rates(estimate: Estimate, *, max_queries: int = 2000) -> Floats:
    """Return the rates, in quality per USD, at which queries change their choice as the price rises.

    They are the slopes of each query's upper hull of (usd, quality), walked from its best candidate to
    its cheapest. Beyond `max_queries`, evenly spaced queries stand for all.
    """
    step = max(estimate.num_queries // max_queries, 1)
    part = estimate.rows(slice(None, None, step))
    part = part.rows(_usable(part).any(axis=1))
    if not part.num_queries:
        return np.zeros(0)
    quality_QM = np.where(_usable(part), part.quality_QM, -np.inf)
    cost_QM = np.where(_usable(part), part.cost_usd_QM, np.inf)
    rows, found = np.arange(quality_QM.shape[0]), []
    current_Q = _first(-quality_QM, cost_QM)
    for _ in range(quality_QM.shape[1] - 1):
        saved_QM = cost_QM[rows, current_Q][:, None] - cost_QM
        lost_QM = quality_QM[rows, current_Q][:, None] - quality_QM
        rate_QM = np.full(saved_QM.shape, np.inf)
        np.divide(lost_QM, saved_QM, out=rate_QM, where=saved_QM > 0)
        next_Q = _first(rate_QM, cost_QM)
        rate_Q = rate_QM[rows, next_Q]
        moves_Q = np.isfinite(rate_Q)
        if not moves_Q.any():
            break
        found.append(rate_Q[moves_Q & (rate_Q > 0)])
        current_Q = np.where(moves_Q, next_Q, current_Q)
    return np.concatenate(found) if found else np.zeros(0)


def _first(key_QM: Floats, tie_QM: Floats) -> Ints:
    """Return the column of the least key of each row; of equal ones that of the least tie, then the first."""
    is_least_QM = key_QM == key_QM.min(axis=1, keepdims=True)
    first_Q: Ints = np.where(is_least_QM, tie_QM, np.inf).argmin(axis=1)
    return first_Q


def _least(estimate: Estimate) -> list[float]:
    """Return the least price where a candidate without a known cost stands beside one with it."""
    is_known_QM = np.isfinite(estimate.cost_usd_QM) & estimate.allowed_QM
    is_unpriced_M = (estimate.allowed_QM & ~is_known_QM).any(axis=0) & ~is_known_QM.any(axis=0)
    return [LEAST_PRICE] if is_unpriced_M.any() and is_known_QM.any() else []


def _usable(estimate: Estimate) -> Bools:
    return estimate.allowed_QM & np.isfinite(estimate.cost_usd_QM) & np.isfinite(estimate.quality_QM)
