"""This module makes a sequencer of a one-shot deployment: one decision, its fallbacks, and the end."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.validation import check_kind
from turnout.policies.deployment import Deployment
from turnout.sequential.actions import Abstain, Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Trace


@final
class OneShot(Sequencer):
    """Calls the deployment's choice; where that fails, the fallbacks in its order; then stops.

    Parameters
    ----------
    deployment:
        A fitted `Deployment` whose candidates have the names of the pool's; the others are never called.
    goal:
        The dial; None means the deployment's own.
    """

    def __init__(self, *, deployment: Deployment, goal: Goal | None = None) -> None:
        check_kind("OneShot.deployment", deployment, Deployment)
        self.deployment = deployment
        self.goal = goal

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the decision's call, the next fallback, or the end."""
        if any(observed.error is None for observed in trace.observed):
            return Choice(action=Stop(), reason="answered")
        # A deployment decides alike on a like query, so a fallback is read off a second look at the ranking.
        allowed_QM = np.array([[c.name in trace.admissible for c in self.deployment.candidates]])
        decision = self.deployment.decide([trace.query], goal=self.goal, rng=rng, allowed_QM=allowed_QM)[0]
        if decision.candidate is None:
            return Choice(action=Abstain(why="nobody may serve"), reason=decision.reason)
        return Choice(
            action=Call(candidate=decision.candidate.name),
            propensity=decision.propensity,
            reason=decision.reason,
            values={
                "expected_quality": decision.expected_quality,
                "expected_usd": decision.expected_cost_usd,
            },
        )
