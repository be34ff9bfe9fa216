"""This module guards: it steps aside to the best single model unless a router earns its place.

On held-out queries the router at its price is compared with the single model that serves the same goal
best. The router is used only if the lower confidence bound of the paired mean difference is above 0, in
the goal's own currency: money saved for a quality floor, quality gained for a spend cap, quality minus
price times usd for a price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.policies.pairs import Difference, Pairs

_ROUNDING = 1e-9
"""Share of the compared size below which a difference is the rounding of sums, not a gain."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the guard found for one goal."""

    is_open: bool
    """Whether the router may decide."""
    gain: float
    """Mean paired difference in favour of the router."""
    low: float
    """Its lower confidence bound."""
    unit: str
    """What is counted: `usd per 1,000`, `quality` or `quality minus price x usd`."""
    count: int
    """Held-out queries behind the verdict."""
    refuted: str | None = None
    """What of the goal these queries show not to be kept, whatever is gained; None for nothing."""

    def describe(self) -> str:
        """Return gain, bound and number of queries as a phrase, or that there are too few for a bound."""
        queries = f"{self.count} held-out {'query' if self.count == 1 else 'queries'}"
        if not self.count:
            return "no held-out query has what is compared"
        if not np.isfinite(self.low):
            return f"gain {self.gain:+.4g} {self.unit}; {queries}: too few queries for a bound"
        but = "" if self.refuted is None else f", but {self.refuted} is not kept"
        return f"gain {self.gain:+.4g}, at least {self.low:+.4g} {self.unit}{but}; {queries}"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """The router at P prices against M single models, on the guard split."""

    options: Pairs
    confidence: float

    def judge(
        self,
        goal: Goal,
        *,
        option: int,
        price: float,
        single: int,
        best: int,
        calibrated: Pairs | None = None,
    ) -> Verdict:
        """Return whether the router at `option` may serve `goal` in place of `single`.

        A floor or a cap must also not be refuted on this split: the goal's own margin may not lie below
        0 with `confidence`. `calibrated` are the same options on the calibration split: where no quality
        was looked at there to set the price, as for a price that is given and for a cap, its queries say
        as honestly what is gained, and are counted in.
        """
        if goal.quality_floor is not None:
            saved = self.options.saved_usd(option, single)
            is_equal = saved.mean == 0.0 and saved.variance == 0.0
            if saved.count < 2 or is_equal:
                # Without money to save, what is asked is which of two equally cheap ways is the better.
                return self._verdict(self.options.quality(option, single), "quality")
            margin = self.options.quality(option, best, share=goal.quality_floor)
            refuted = "the floor" if margin.high(self.confidence) + goal.risk < 0 else None
            usd = self.options.at("single_usd", option, single)
            return self._verdict(saved, "usd per 1,000", refuted=refuted, scale=1000.0, size=usd)
        options = self.options if calibrated is None else self.options.joined(calibrated)
        gained = options.quality(option, single)
        if goal.usd_per_1k is not None:
            spend = self.options.spend(option, best).low(self.confidence)
            refuted = "the cap" if spend * 1000.0 > goal.usd_per_1k * (1 + goal.risk) else None
            return self._verdict(gained, "quality", refuted=refuted)
        worth = options.worth(option, single, price)
        unit = (
            "quality" if price == 0 else "usd per 1,000" if np.isinf(price) else "quality minus price x usd"
        )
        return self._verdict(worth, unit, scale=1000.0 if np.isinf(price) else 1.0)

    def _verdict(
        self,
        difference: Difference,
        unit: str,
        *,
        refuted: str | None = None,
        scale: float = 1.0,
        size: float = 1.0,
    ) -> Verdict:
        low, noise = difference.low(self.confidence), _ROUNDING * size
        return Verdict(
            is_open=bool(low > noise and refuted is None),
            gain=0.0 if abs(difference.mean) <= noise else difference.mean * scale,
            low=low * scale,
            unit=unit,
            count=difference.count,
            refuted=refuted,
        )
