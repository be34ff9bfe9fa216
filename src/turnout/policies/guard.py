"""This module guards: it steps aside to the best single model unless a router earns its place.

At every price the router's decisions are compared with the best single model's *for that price* (the
candidate of the highest mean quality minus price times mean cost on the fit split), on held-out queries,
in the same currency: quality minus price times usd. The router is used at a price only if the lower
confidence bound of the paired mean difference is above 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.outcomes import Bools, Floats
from turnout.policies.risk import mean_bound


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """The verdict per price; arrays have shape (P,)."""

    price_P: Floats
    gain_P: Floats
    """Mean paired difference, router minus best single, in quality minus price times usd."""
    low_P: Floats
    """Its lower confidence bound."""
    is_open_P: Bools
    """Whether the router may decide at this price."""
    confidence: float
    count: int
    """Number of held-out queries behind the verdict."""

    def is_open(self, price: float) -> bool:
        """Whether the router may decide at `price`: the verdict of the nearest lower measured price."""
        index = max(int(np.searchsorted(self.price_P, price, side="right")) - 1, 0)
        return bool(self.is_open_P[index])

    @property
    def share_open(self) -> float:
        """Share of the measured prices at which the router may decide."""
        return float(self.is_open_P.mean())


def measure_guard(
    gain_quality_PQ: Floats, gain_usd_PQ: Floats, price_P: Floats, *, confidence: float
) -> Guard:
    """Build a `Guard` from paired differences (router minus best single) of shape (P, Q).

    At an infinite price the difference is minus the extra cost. Queries with an unknown difference are
    left out; with none left the guard is shut.
    """
    gain_P, low_P = np.full(price_P.size, np.nan), np.full(price_P.size, -np.inf)
    counts = []
    for index, price in enumerate(price_P):
        if price == 0:
            gain_Q = gain_quality_PQ[index]
        elif np.isinf(price):
            gain_Q = -gain_usd_PQ[index]
        else:
            gain_Q = gain_quality_PQ[index] - price * gain_usd_PQ[index]
        gain_Q = gain_Q[np.isfinite(gain_Q)]
        counts.append(gain_Q.size)
        if gain_Q.size >= 2:
            gain_P[index] = gain_Q.mean()
            variance = float(gain_Q.var(ddof=1))
            low_P[index] = mean_bound(
                float(gain_P[index]), variance, gain_Q.size, confidence=confidence, is_upper=False
            )
    return Guard(
        price_P=price_P,
        gain_P=gain_P,
        low_P=low_P,
        is_open_P=low_P > 0,
        confidence=confidence,
        count=int(min(counts, default=0)),
    )


def open_guard(price_P: Floats) -> Guard:
    """Return a guard that always lets the router decide; it promises nothing and says so."""
    unknown_P = np.full(price_P.size, np.nan)
    return Guard(
        price_P=price_P,
        gain_P=unknown_P,
        low_P=unknown_P,
        is_open_P=np.ones(price_P.size, np.bool_),
        confidence=0.5,
        count=0,
    )
