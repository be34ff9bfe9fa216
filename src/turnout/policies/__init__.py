"""Given estimates and a budget, whom do we call?

Contract: `Policy.decide(estimate, budget, rng) -> Decisions`. Imports: core.

| name | sentence | source |
|---|---|---|
| `best` | highest quality minus price times usd | S57 |
| `threshold` | the strong one where the expected gain reaches a threshold | S91 |
| `cheapest` | the cheapest that is good enough | S86 |
| `budgeted` | the best batch under one spend cap | Lagrangian relaxation |

`Deployment` (a router, a policy, a calibrated dial, a guard) lives here because it decides by contract
alone: it knows no text, no training and no bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.contracts import Policy
from turnout.core.lazy import lazy_exports
from turnout.core.registry import Registry

if TYPE_CHECKING:
    from turnout.policies.best import Best
    from turnout.policies.budgeted import Budgeted
    from turnout.policies.cheapest import Cheapest
    from turnout.policies.deployment import Deployment
    from turnout.policies.frontier import Frontier
    from turnout.policies.grid import price_grid, sweep
    from turnout.policies.guard import Guard, Verdict
    from turnout.policies.masks import feasible, obstacles
    from turnout.policies.pacing import Pacer
    from turnout.policies.pairs import Pairs, measure_pairs, measure_singles
    from turnout.policies.plan import Plan
    from turnout.policies.threshold import Threshold, threshold_for_share

TABLE = {
    "best": "turnout.policies.best:Best",
    "budgeted": "turnout.policies.budgeted:Budgeted",
    "cheapest": "turnout.policies.cheapest:Cheapest",
    "deployment": "turnout.policies.deployment:Deployment",
    "threshold": "turnout.policies.threshold:Threshold",
}

registry = Registry("policies", TABLE, kind=Policy)

_LAZY = {
    "Best": ".best",
    "Budgeted": ".budgeted",
    "Cheapest": ".cheapest",
    "Deployment": ".deployment",
    "Frontier": ".frontier",
    "Guard": ".guard",
    "Pacer": ".pacing",
    "Pairs": ".pairs",
    "Plan": ".plan",
    "Threshold": ".threshold",
    "Verdict": ".guard",
    "feasible": ".masks",
    "measure_pairs": ".pairs",
    "measure_singles": ".pairs",
    "obstacles": ".masks",
    "price_grid": ".grid",
    "sweep": ".grid",
    "threshold_for_share": ".threshold",
}

__all__ = [
    "Best",
    "Budgeted",
    "Cheapest",
    "Deployment",
    "Frontier",
    "Guard",
    "Pacer",
    "Pairs",
    "Plan",
    "Threshold",
    "Verdict",
    "feasible",
    "measure_pairs",
    "measure_singles",
    "obstacles",
    "price_grid",
    "registry",
    "sweep",
    "threshold_for_share",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
