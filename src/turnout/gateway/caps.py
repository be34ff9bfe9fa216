"""This module says which spend caps a deployment cannot keep, before money is spent against one of them."""

from __future__ import annotations

import numpy as np

from turnout.core.budget import Goal
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.policies.deployment import Deployment


def least_usd_per_1k(deployment: Deployment) -> tuple[str, float] | None:
    """Return who spends least and the mean USD per 1,000 requests that calibration gives for it.

    That is a single model, or the router where it is cheaper at its highest price; None without costs.
    """
    frontier = deployment.frontier
    if frontier is None or not np.isfinite(frontier.calibrated_usd_M).any():
        return None
    cheapest = int(np.nanargmin(frontier.calibrated_usd_M))
    found = [
        (deployment.candidates[cheapest].name, frontier.outcome(single=cheapest)[1] * 1000.0),
        ("the router", frontier.outcome(option=frontier.price_P.size - 1)[1] * 1000.0),
    ]
    known = [item for item in found if np.isfinite(item[1])]
    return min(known, key=lambda item: item[1], default=None)


def check_cap(deployment: Deployment, goal: Goal, param: str) -> None:
    """Raise `ApiError` (422) for a cap that `too_small` finds fault with."""
    message = too_small(deployment, goal, param)
    if message is not None:
        raise ApiError(422, message, code="budget_too_small", param=param)


def too_small(deployment: Deployment, goal: Goal, param: str) -> str | None:
    """Return what is wrong with a cap below the expected cost of whoever spends least, or None.

    A cap that is too near to that cost to be promised is served all the same: it can be kept on average.
    """
    if goal.usd_per_1k is None or deployment.plan(goal).is_kept:
        return None
    least = least_usd_per_1k(deployment)
    if least is None or goal.usd_per_1k * (1 + goal.risk) >= least[1]:
        return None
    name, usd = least
    return sentence(
        f"the spend cap of {param!r} is below the cheapest there is",
        # Rounded up: the cap that is named must be one that is served.
        allowed=f"at least {usd * 1.0006:.4g} usd per 1,000 requests, the expected cost of {name}",
        got=goal.usd_per_1k,
        do="allow more, or name a candidate as the model",
    )


def unkept(deployment: Deployment, goal: Goal | None) -> tuple[str, ...]:
    """Return what to say at the start where the goal in force cannot be promised, else nothing."""
    plan = deployment.plan(goal)
    if plan.is_kept:
        return ()
    whose = "the deployment's goal" if goal is None else "the goal of the configuration"
    return (f"{whose} will not be kept for certain: {plan.text}",)
