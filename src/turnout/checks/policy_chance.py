"""This module checks that a propensity is the probability that it claims to be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from turnout.checks.deciding import decide_at, is_deterministic
from turnout.checks.fixtures import small_estimate
from turnout.checks.report import require, skip
from turnout.core.budget import Budget
from turnout.core.contracts import Policy

_NUM_DRAWS = 4000
_NUM_DEVIATIONS = 5.0
_BUDGETS = (Budget(), Budget(price=100.0))


def a_choice_without_chance_has_propensity_one(policy: Policy) -> None:
    """Where 4,000 draws of one query all agree, the propensity is 1 or close to it."""
    for row in range(3):
        for budget in _BUDGETS:
            choice_N, propensity_N = _draw(policy, row, budget)
            if np.unique(choice_N).size == 1:
                low = float(propensity_N.min())
                require(low > 0.99, policy, "a choice that never varies", allowed="propensity 1", got=low)


def frequencies_match_propensities(policy: Policy) -> None:
    """Drawn 4,000 times, each candidate is chosen as often as its propensity says."""
    if all(is_deterministic(policy, small_estimate(), budget) for budget in _BUDGETS):
        skip(policy, "it is deterministic")
    for row in range(3):
        for budget in _BUDGETS:
            choice_N, propensity_N = _draw(policy, row, budget)
            total = sum(_require_frequency(policy, choice_N, propensity_N, m) for m in np.unique(choice_N))
            require(total <= 1 + 1e-6, policy, "propensities of one query", allowed="sum 1", got=total)


def _draw(policy: Policy, row: int, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    repeated = small_estimate().rows(np.full(_NUM_DRAWS, row))
    decisions = decide_at(policy, repeated, budget)
    return decisions.choice_Q, decisions.propensity_Q


def _require_frequency(policy: Policy, choice_N: np.ndarray, propensity_N: np.ndarray, choice: int) -> float:
    chosen_N = choice_N == choice
    stated = float(propensity_N[chosen_N][0])
    is_steady = np.allclose(propensity_N[chosen_N], stated, rtol=0.0, atol=1e-9)
    require(
        is_steady, policy, "one query, one choice, two propensities", got=np.unique(propensity_N[chosen_N])
    )
    share = float(chosen_N.mean())
    slack = _NUM_DEVIATIONS * math.sqrt(stated * (1 - stated) / _NUM_DRAWS) + 1e-9
    what = f"candidate {choice} states the propensity {stated:.4f}"
    require(
        abs(share - stated) <= slack, policy, what, allowed=f"a share within {slack:.4f} of it", got=share
    )
    return stated


CHECKS: tuple[Callable[[Policy], None], ...] = (
    a_choice_without_chance_has_propensity_one,
    frequencies_match_propensities,
)
"""The promises about chance."""
