"""This module holds the dial: a `Goal` in a user's own terms, and the `Budget` that a policy obeys.

A user states a goal (a quality floor, a spend cap, or what one more right answer is worth). Calibration
turns it into a budget: the dual price of money, with caps and floors for one decision. See docs/policies.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_number


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What one decision may spend and must reach."""

    price: float = 0.0
    """Dual price of money: quality that one USD must buy. 0 maximises quality; infinity, cheapness."""
    usd_per_query: float | None = None
    """Hard cap on the expected cost of one query in USD; None means no cap."""
    usd_per_1k: float | None = None
    """Cap on the mean expected cost of a batch in USD per 1,000 queries; used by `budgeted`."""
    min_quality: float | None = None
    """Floor on the estimated quality of the chosen candidate; used by `cheapest`."""
    max_latency_s: float | None = None
    """Cap on the expected latency in seconds; a candidate of unknown latency is kept."""

    def __post_init__(self) -> None:
        check_number("Budget.price", self.price, low=0.0)
        for name in ("usd_per_query", "usd_per_1k", "max_latency_s"):
            if getattr(self, name) is not None:
                check_number(f"Budget.{name}", getattr(self, name), low=0.0)
        if self.min_quality is not None:
            check_number("Budget.min_quality", self.min_quality, low=0.0, high=1.0)

    def at_price(self, price: float) -> Budget:
        """Return the same caps under another dual price."""
        return replace(self, price=price)


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a user asks for; at most one of the first three, none meaning the best quality there is."""

    quality_floor: float | None = None
    """Share of the best single model's quality to keep, in (0, 2]; 1.0 means equal quality."""
    usd_per_1k: float | None = None
    """Spend cap in USD per 1,000 requests."""
    usd_per_quality: float | None = None
    """What one unit of quality (one more right answer) is worth in USD."""
    risk: float = 0.0
    """Slack on the promise: how far quality may lie below the floor (in quality), or spending above
    the cap (as a share of it), before the promise counts as broken."""
    confidence: float = 0.95
    """Probability, over calibration draws, with which the promise is to hold."""

    def __post_init__(self) -> None:
        given = [name for name in _DIALS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(sentence("Goal", allowed=f"at most one of {', '.join(_DIALS)}", got=given))
        if self.quality_floor is not None:
            check_number("Goal.quality_floor", self.quality_floor, low=0.0, high=2.0, allow_low=False)
        if self.usd_per_1k is not None:
            check_number("Goal.usd_per_1k", self.usd_per_1k, low=0.0, allow_low=False)
        if self.usd_per_quality is not None:
            check_number("Goal.usd_per_quality", self.usd_per_quality, low=0.0, allow_low=False)
        check_number("Goal.risk", self.risk, low=0.0, high=1.0, allow_high=False)
        check_number("Goal.confidence", self.confidence, low=0.5, high=1.0, allow_low=False, allow_high=False)

    @property
    def dial(self) -> str | None:
        """The name of the term that was given, or None for best quality."""
        return next((name for name in _DIALS if getattr(self, name) is not None), None)

    @property
    def fixed_price(self) -> float | None:
        """The dual price where the goal states it (0 for best quality), None where calibration finds it."""
        if self.usd_per_quality is not None:
            return 0.0 if math.isinf(self.usd_per_quality) else 1.0 / self.usd_per_quality
        return 0.0 if self.dial is None else None

    @property
    def asks_for_money(self) -> bool:
        """Whether spending is part of the goal: a cap, or a price above 0. A floor is about quality."""
        return self.usd_per_1k is not None or (self.fixed_price or 0.0) > 0.0

    def describe(self) -> str:
        """Return the goal as a phrase for reports and headers."""
        if self.quality_floor is not None:
            return f"at least {self.quality_floor:.1%} of the best single model's quality"
        if self.usd_per_1k is not None:
            return f"at most {self.usd_per_1k:g} usd per 1,000 requests"
        if self.usd_per_quality is not None:
            return f"{self.usd_per_quality:g} usd for one more right answer"
        return "the best quality"


_DIALS = ("quality_floor", "usd_per_1k", "usd_per_quality")
