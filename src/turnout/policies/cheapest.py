"""This module decides for the cheapest candidate that is good enough."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats
from turnout.core.validation import check_number
from turnout.policies.choose import capped, decide_by_score, require_costs


@final
class Cheapest(Policy):
    """Choose the cheapest candidate whose estimated quality reaches a floor; else the best one.

    The floor of a query is the larger of `budget.min_quality` and `share` times the best allowed
    candidate's estimate (the "theta-slack" rule that several papers use, for example S86). With neither,
    the cheapest allowed candidate is chosen. Deterministic; O(M log M) per query.

    Parameters
    ----------
    share:
        Share of the best estimate that is good enough, in [0, 1].
    caution:
        Standard deviations subtracted from an estimate before it is held against the floor.
    """

    def __init__(self, *, share: float = 0.0, caution: float = 0.0) -> None:
        self.share = check_number("Cheapest.share", share, low=0.0, high=1.0)
        self.caution = check_number("Cheapest.caution", caution, low=0.0, high=100.0)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; `rng` and the price are not used."""
        require_costs(estimate, "Cheapest.decide")
        allowed_QM = capped(estimate, budget)
        quality_QM = estimate.quality_QM
        if self.caution > 0:
            quality_QM = quality_QM - self.caution * estimate.spread_QM
        floor_Q = self._floor(quality_QM, allowed_QM, budget.min_quality)
        is_enough_QM = (quality_QM >= floor_Q[:, None]) & np.isfinite(estimate.cost_usd_QM)
        # Two bands: everyone who is good enough, by cheapness; then the rest, by quality. The first band
        # scores above 1 because quality never does.
        score_QM: Floats = np.where(is_enough_QM, 2.0 - _shrink(estimate.cost_usd_QM), quality_QM)
        reason = "cheapest of those good enough"
        return decide_by_score(estimate, score_QM, budget, reason=reason, allowed_QM=allowed_QM)

    def _floor(self, quality_QM: Floats, allowed_QM: Bools, min_quality: float | None) -> Floats:
        best_Q = np.where(allowed_QM & ~np.isnan(quality_QM), quality_QM, -np.inf).max(
            axis=1, initial=-np.inf
        )
        share_Q = np.where(np.isfinite(best_Q), self.share * best_Q, -np.inf) if self.share > 0 else -np.inf
        floor: Floats = np.maximum(share_Q, -np.inf if min_quality is None else min_quality)
        return np.broadcast_to(floor, best_Q.shape)


def _shrink(cost_usd_QM: Floats) -> Floats:
    """Map costs to [0, 1) in their order."""
    return cost_usd_QM / (1.0 + cost_usd_QM)
