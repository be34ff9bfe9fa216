"""This module lets a policy decide, and compares what it decided."""

from __future__ import annotations

import math

import numpy as np

from turnout.checks.report import require, skip
from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.rng import make_rng

BUDGETS = (
    Budget(),
    Budget(price=100.0),
    Budget(price=2000.0),
    Budget(price=math.inf),
    Budget(usd_per_1k=1.0),
    Budget(min_quality=0.5),
    Budget(price=100.0, usd_per_query=0.0012),
)
"""Budgets of every kind, for the checks' own estimates (costs of 0.05 to 16 USD per 1,000 queries)."""


def decide(policy: Policy, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
    """Let the policy decide; a name for the one call that every check makes."""
    return policy.decide(estimate, budget, rng)


def decide_at(policy: Policy, estimate: Estimate, budget: Budget, *, seed: int = 0) -> Decisions:
    """Let the policy decide with a generator of its own."""
    return policy.decide(estimate, budget, make_rng(seed, "checks", "decide"))


def is_deterministic(policy: Policy, estimate: Estimate, budget: Budget) -> bool:
    """Whether four seeds agree on every choice and every propensity is 1."""
    runs = [decide_at(policy, estimate, budget, seed=seed) for seed in range(4)]
    is_sure = all((run.propensity_Q == 1).all() for run in runs)
    return is_sure and all(np.array_equal(run.choice_Q, runs[0].choice_Q) for run in runs)


def require_deterministic(policy: Policy, estimate: Estimate, budget: Budget) -> None:
    """Raise `CheckSkipped` for a policy that draws lots."""
    if not is_deterministic(policy, estimate, budget):
        skip(policy, "it is stochastic, and this promise is one of deterministic policies")


def require_same_choices(policy: Policy, what: str, first: Decisions, second: Decisions) -> None:
    """Raise `CheckFailed` unless both chose the same names with the same propensities."""
    for row, (a, b) in enumerate(zip(first.names_Q, second.names_Q, strict=True)):
        require(a == b, policy, f"{what}: query {row}", allowed=a, got=b)
    is_same = np.allclose(first.propensity_Q, second.propensity_Q, rtol=0.0, atol=1e-12)
    require(is_same, policy, f"{what}: the propensities")
