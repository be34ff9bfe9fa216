"""This module draws out of a deployment what its dial can do, and where it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from turnout.core.budget import Goal
from turnout.policies.deployment import Deployment


def curve(deployment: Deployment, goal: Goal | None) -> dict[str, Any] | None:
    """Return quality and cost of the router at every price, of every single model, and at the dial.

    On the calibration split, in USD per 1,000 requests; None where nothing was calibrated or cost nothing.
    """
    frontier = deployment.frontier
    if frontier is None:
        return None
    router = [_point(*frontier.outcome(option=option)) for option in range(frontier.price_P.size)]
    singles = [
        {"name": candidate.name, **_point(*frontier.outcome(single=column))}
        for column, candidate in enumerate(deployment.candidates)
    ]
    known = [point for point in router if point["usd_per_1k"] is not None]
    if not known:
        return None
    plan = deployment.plan(goal)
    return {
        "router": _in_order(known),
        "singles": [point for point in singles if point["usd_per_1k"] is not None],
        "best": deployment.candidates[frontier.best].name,
        "dial": {
            "text": (deployment.goal if goal is None else goal).describe(),
            "promise": plan.text,
            "is_kept": plan.is_kept,
            "router_decides": plan.is_open,
            "quality": _known(plan.quality),
            "usd_per_1k": _known(plan.usd_per_1k),
        },
    }


def _in_order(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points by cost; equal ones once."""
    by_cost = {(point["usd_per_1k"], point["quality"]): point for point in points}
    return [by_cost[key] for key in sorted(by_cost)]


def _point(quality: float, usd: float) -> dict[str, Any]:
    return {"quality": _known(quality), "usd_per_1k": _known(usd * 1000.0)}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) and not np.isnan(value) else None
