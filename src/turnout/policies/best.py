"""This module decides by the one idea: the candidate of the highest quality minus price times usd (S57)."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate
from turnout.core.scoring import levelled, score
from turnout.core.validation import check_number
from turnout.policies.choose import decide_by_score, require_costs

_REASONS = {True: "highest estimated quality", False: "highest quality minus price x usd"}


@final
class Best(Policy):
    """Choose `argmax_m quality[q, m] - caution * spread[q, m] - price * cost_usd[q, m]`.

    Source: the plug-in rule of CARROT (S57, arXiv 2502.03261, equation of the router `g`), with the
    trade-off written as a price in quality per USD rather than as a weight in [0, 1].
    Deterministic; O(M log M) per query.

    Parameters
    ----------
    caution:
        Number of standard deviations of the estimate that are subtracted from its quality, so that a
        candidate of which little is known must look better by more. 0 is the published rule.
    """

    def __init__(self, *, caution: float = 0.0) -> None:
        self.caution = check_number("Best.caution", caution, low=0.0, high=100.0)

    def decide(self, estimate: Estimate, budget: Budget, rng: np.random.Generator) -> Decisions:
        """Return one decision per query; `rng` is not used."""
        if budget.price > 0:
            require_costs(estimate, "Best.decide")
        quality_QM = estimate.quality_QM
        if self.caution > 0:
            quality_QM = quality_QM - self.caution * estimate.spread_QM
        score_QM = score(quality_QM, estimate.cost_usd_QM, budget.price)
        score_QM = levelled(score_QM, estimate.allowed_QM)
        return decide_by_score(estimate, score_QM, budget, reason=_REASONS[budget.price == 0])
