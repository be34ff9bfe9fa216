"""This module chooses by quality, money and time."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.scoring import score
from turnout.core.validation import check_number
from turnout.policies.choose import decide_by_score, require_costs


@final
class PatientPolicy(Policy):
    """Choose `argmax_m quality - price * cost_usd - impatience * latency_s`.

    A candidate of unknown latency is taken to be as slow as the slowest known one.

    Parameters
    ----------
    impatience:
        Quality that one second is worth, at least 0.
    """

    def __init__(self, *, impatience: float = 0.001) -> None:
        self.impatience = check_number("PatientPolicy.impatience", impatience, low=0.0, high=1e3)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; `rng` is not used."""
        if budget.price > 0:
            require_costs(estimate, "PatientPolicy.decide")
        score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, budget.price)
        known_QM = np.where(np.isnan(estimate.latency_s_QM), -np.inf, estimate.latency_s_QM)
        slowest_Q1 = np.maximum(known_QM.max(axis=1, keepdims=True, initial=-np.inf), 0.0)
        wait_s_QM = np.where(np.isfinite(known_QM), known_QM, slowest_Q1)
        # At an infinite price nothing but money counts.
        if np.isfinite(budget.price):
            score_QM = score_QM - self.impatience * wait_s_QM
        return decide_by_score(estimate, score_QM, budget, reason="quality minus money minus time")
