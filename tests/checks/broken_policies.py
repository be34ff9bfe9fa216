"""This module holds policies that keep every promise, and ways to break each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import NONE, Decisions
from turnout.core.estimate import Estimate
from turnout.core.scoring import rank, score


def decisions_from(
    estimate: Estimate, ranked_QM: np.ndarray, *, price: float = 0.0, propensity_Q: Any = None
) -> Decisions:
    """Return decisions for a ranking, with everything else read off the estimate."""
    choice_Q, rows = ranked_QM[:, 0], np.arange(ranked_QM.shape[0])
    is_none_Q = choice_Q == NONE
    return Decisions(
        candidates=estimate.candidates,
        choice_Q=choice_Q,
        ranked_QM=ranked_QM,
        propensity_Q=np.ones(choice_Q.size) if propensity_Q is None else propensity_Q,
        reason_Q=("because",) * choice_Q.size,
        quality_Q=np.where(is_none_Q, np.nan, estimate.quality_QM[rows, choice_Q]),
        cost_usd_Q=np.where(is_none_Q, np.nan, estimate.cost_usd_QM[rows, choice_Q]),
        price=price,
    )


def capped(estimate: Estimate, budget: Budget) -> np.ndarray:
    """Return the mask after the caps of one query."""
    allowed_QM = estimate.allowed_QM.copy()
    if budget.usd_per_query is not None:
        allowed_QM &= estimate.cost_usd_QM <= budget.usd_per_query
    if budget.max_latency_s is not None:
        allowed_QM &= ~(estimate.latency_s_QM > budget.max_latency_s)
    return allowed_QM


class GoodPolicy(Policy):
    """Quality minus price times cost."""

    def score(self, estimate: Estimate, budget: Budget) -> np.ndarray:
        """Return the score, shape (Q, M); what most of the broken ones change."""
        return score(estimate.quality_QM, estimate.cost_usd_QM, budget.price)

    def mask(self, estimate: Estimate, budget: Budget) -> np.ndarray:
        """Return who may serve, shape (Q, M)."""
        return capped(estimate, budget)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        score_QM, mask_QM = self.score(estimate, budget), self.mask(estimate, budget)
        names, quality_QM = estimate.names, estimate.quality_QM
        ranked_QM = rank(score_QM, mask_QM, estimate.cost_usd_QM, names, quality_QM=quality_QM)
        return decisions_from(estimate, ranked_QM, price=budget.price)


class CoinPolicy(GoodPolicy):
    """The good policy, but one time in five somebody allowed at random; states what it does."""

    stated = 0.2

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        made = super().decide(estimate, budget, rng)
        mask_QM, rows = self.mask(estimate, budget), np.arange(len(made))
        weight_QM = np.where(mask_QM, rng.random(mask_QM.shape), -1.0)
        is_drawn_Q = (rng.random(len(made)) < 0.2) & mask_QM.any(axis=1)
        best_Q = made.choice_Q
        choice_Q = np.where(is_drawn_Q, weight_QM.argmax(axis=1), best_Q)
        share_Q = self.stated / np.maximum(mask_QM.sum(axis=1), 1)
        propensity_Q = np.where(choice_Q == best_Q, 1 - self.stated + share_Q, share_Q)
        ranked_QM = np.full_like(made.ranked_QM, NONE)
        for row in rows:
            rest = [index for index in made.ranked_QM[row] if index not in (NONE, choice_Q[row])]
            ranked = [choice_Q[row], *rest] if choice_Q[row] != NONE else []
            ranked_QM[row, : len(ranked)] = ranked
        none_Q = choice_Q == NONE
        return decisions_from(
            estimate, ranked_QM, price=budget.price, propensity_Q=np.where(none_Q, 1.0, propensity_Q)
        )


def broken(base: type[Policy] = GoodPolicy, **attributes: Any) -> Policy:
    """Return a policy of a class that overrides attributes of `base`."""
    return type("Broken", (base,), attributes)()


def altered(**changes: Any) -> Policy:
    """Return a policy whose decisions are changed: each value is a function of (estimate, decisions)."""

    def decide(self: Any, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        made = GoodPolicy.decide(self, estimate, budget, rng)
        return replace(made, **{name: change(estimate, made) for name, change in changes.items()})

    return broken(decide=decide)
