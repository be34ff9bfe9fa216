"""This module joins frontier and guard into a plan for one goal: who decides, and what is promised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from turnout.core.budget import Goal
from turnout.policies.frontier import Frontier
from turnout.policies.guard import Guard, Verdict


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a deployment serves one goal."""

    price: float
    """The dual price of money."""
    is_open: bool
    """Whether the router decides; otherwise the single model does."""
    single: int | None
    """Index of the single model that the guard falls back to; None where nothing was calibrated."""
    is_kept: bool
    """Whether the goal is promised at its risk and confidence."""
    quality: float
    """Mean quality on the calibration split; NaN where nothing was calibrated."""
    usd_per_1k: float
    """Mean cost on the calibration split, USD per 1,000 requests; NaN without costs."""
    verdict: Verdict | None
    """What the guard found; None without a guard."""
    text: str
    """The promise, or why there is none, as a sentence."""


def make_plan(goal: Goal, frontier: Frontier, guard: Guard | None, names: tuple[str, ...]) -> Plan:
    """Find the router's price and the best single model for `goal`, and let the guard choose."""
    found, single = frontier.find_price(goal), frontier.find_single(goal)
    price = float(frontier.price_P[found.index]) if goal.fixed_price is None else goal.fixed_price
    if goal.asks_for_money:
        price = max(price, frontier.least_price)
    verdict = None
    is_open = True
    if guard is not None:
        verdict = guard.judge(
            goal,
            option=found.index,
            price=price,
            single=single.index,
            best=frontier.best,
            calibrated=frontier.options,
        )
        # A router that cannot keep the goal does not replace a single model that can.
        is_open = verdict.is_open and (found.is_kept or not single.is_kept)
    is_kept = found.is_kept if is_open else single.is_kept
    quality, usd = frontier.outcome(option=found.index) if is_open else frontier.outcome(single=single.index)
    who = "the router" if is_open else names[single.index]
    # A newcomer was measured on its probe rows alone.
    count = frontier.count if is_open else frontier.count_of(single.index)
    reason = found.by_definition if is_open else single.by_definition
    return Plan(
        price=price,
        is_open=is_open,
        single=single.index,
        is_kept=is_kept,
        quality=quality,
        usd_per_1k=usd * 1000.0,
        verdict=verdict,
        text=_text(goal, count, who, is_kept, reason, (quality, usd * 1000.0)),
    )


def _text(
    goal: Goal,
    count: int,
    who: str,
    is_kept: bool,
    reason: Literal["best", "free"] | None,
    outcome: tuple[float, float],
) -> str:
    quality, usd_per_1k = outcome
    if math.isnan(quality):
        return f"{who} serves {goal.describe()}; calibration could not measure it, and nothing is promised"
    measured = f"quality {quality:.4g}" + (f" at {usd_per_1k:.4g} usd per 1,000" if usd_per_1k >= 0 else "")
    if goal.fixed_price is not None:
        return f"{who} serves {goal.describe()}; calibration gives {measured}, and nothing is promised"
    if is_kept and reason is not None:
        why = "is the best single model itself" if reason == "best" else "costs nothing"
        queries = f"calibration on {count} queries gives {measured}"
        return f"{who} {why}, so that it keeps {goal.describe()} by definition; {queries}"
    slack = f", slack {goal.risk:g}" if goal.risk else ""
    terms = f"confidence {goal.confidence:.0%}{slack}, {count} calibration queries"
    if is_kept:
        return f"{who} keeps {goal.describe()} ({terms}); calibration gives {measured}"
    return f"{goal.describe()} cannot be promised ({terms}); {who} comes nearest with {measured}"
