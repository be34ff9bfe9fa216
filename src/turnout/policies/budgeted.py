"""This module decides a batch under one cap on its mean cost, through the dual price of money."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints
from turnout.core.scoring import score
from turnout.core.validation import check_count
from turnout.policies.choose import capped, decide_by_score, require_costs


@final
class Budgeted(Policy):
    """Maximise the batch's expected quality subject to `mean cost <= budget.usd_per_1k / 1000`.

    The Lagrangian relaxation of this multiple-choice knapsack has one dual price: at price p each query
    takes `argmax quality - p * usd`, whose mean cost falls as p rises. Bisection finds the smallest
    feasible price; the money left over then upgrades, in order of gain per USD, queries that would
    choose a dearer candidate just below that price. The result lies within one query's quality of the
    linear relaxation's optimum (Sinha and Zoltners 1979). Without a cap it is `Best` at `budget.price`.

    If even the cheapest choice exceeds the cap, it is made, and the reason says so.

    Parameters
    ----------
    num_steps:
        Bisection steps; the price is found to about 2^-num_steps of its range.
    """

    def __init__(self, *, num_steps: int = 60) -> None:
        self.num_steps = check_count("Budgeted.num_steps", num_steps, low=8, high=200)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; `rng` is not used."""
        if budget.usd_per_1k is None:
            reason = "highest quality minus price x usd"
            score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, budget.price)
            return decide_by_score(estimate, score_QM, budget, reason=reason)
        require_costs(estimate, "Budgeted.decide")
        cap_usd = budget.usd_per_1k / 1000.0
        low, high = self._bracket(estimate, budget, cap_usd)
        if math.isinf(high):
            return self._at(estimate, budget, math.inf, "cheapest; the spend cap cannot be met")
        chosen = self._at(estimate, budget, high, "highest quality under the spend cap")
        if low == high:
            return chosen
        dearer = self._at(estimate, budget, low, "highest quality under the spend cap")
        return _upgrade(estimate, chosen, dearer, cap_usd)

    def _at(self, estimate: Estimate, budget: Budget, price: float, reason: str) -> Decisions:
        score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, price)
        # A candidate of unknown cost can keep no promise about money.
        known_QM = capped(estimate, budget) & np.isfinite(estimate.cost_usd_QM)
        return decide_by_score(estimate, score_QM, budget.at_price(price), reason=reason, allowed_QM=known_QM)

    def _bracket(self, estimate: Estimate, budget: Budget, cap_usd: float) -> tuple[float, float]:
        """Return prices around the critical one: too dear at `low`, within the cap at `high`."""
        if self._mean_usd(estimate, budget, 0.0) <= cap_usd:
            return 0.0, 0.0
        if self._mean_usd(estimate, budget, math.inf) > cap_usd:
            return math.inf, math.inf
        low, high = 0.0, 1.0
        while self._mean_usd(estimate, budget, high) > cap_usd:
            low, high = high, high * 16.0
            if high > 1e18:
                return low, math.inf
        for _ in range(self.num_steps):
            middle = math.sqrt(low * high) if low > 0 else high / 16.0
            if middle in (low, high):
                break
            if self._mean_usd(estimate, budget, middle) > cap_usd:
                low = middle
            else:
                high = middle
        return low, high

    def _mean_usd(self, estimate: Estimate, budget: Budget, price: float) -> float:
        allowed_QM = capped(estimate, budget) & np.isfinite(estimate.cost_usd_QM)
        score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, price)
        key_QM = np.where(allowed_QM & ~np.isnan(score_QM), score_QM, -np.inf)
        choice_Q = key_QM.argmax(axis=1)
        cost_Q = estimate.cost_usd_QM[np.arange(choice_Q.size), choice_Q]
        served_Q = np.isfinite(key_QM.max(axis=1))
        return float(cost_Q[served_Q].sum() / max(choice_Q.size, 1))


def _upgrade(estimate: Estimate, chosen: Decisions, dearer: Decisions, cap_usd: float) -> Decisions:
    """Spend what is left on the queries that differ, most quality per USD first."""
    rows = np.arange(len(chosen))
    usable_Q = (chosen.choice_Q >= 0) & (dearer.choice_Q >= 0)
    cost_Q = np.where(chosen.choice_Q >= 0, estimate.cost_usd_QM[rows, chosen.choice_Q], 0.0)
    extra_usd_Q = estimate.cost_usd_QM[rows, dearer.choice_Q] - cost_Q
    gain_Q = estimate.quality_QM[rows, dearer.choice_Q] - estimate.quality_QM[rows, chosen.choice_Q]
    differ = np.flatnonzero(usable_Q & (chosen.choice_Q != dearer.choice_Q) & (gain_Q > 0))
    left_usd = cap_usd * len(chosen) - float(cost_Q.sum())
    order = differ[np.argsort(-gain_Q[differ] / np.maximum(extra_usd_Q[differ], 1e-30), kind="stable")]
    take = order[np.cumsum(extra_usd_Q[order]) <= left_usd]
    return _swap(chosen, dearer, take)


def _swap(chosen: Decisions, dearer: Decisions, rows: Ints) -> Decisions:
    def mixed(name: str) -> Floats | Ints:
        values = getattr(chosen, name).copy()
        values[rows] = getattr(dearer, name)[rows]
        return values  # type: ignore[no-any-return]

    names = ("choice_Q", "ranked_QM", "quality_Q", "cost_usd_Q")
    return replace(chosen, **{name: mixed(name) for name in names})  # type: ignore[arg-type]
