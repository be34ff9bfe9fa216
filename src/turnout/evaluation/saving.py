"""This module compares a curve with the best single model: what is saved, and what is gained.

Source: LLMRouterBench (arXiv 2601.07206): PerfGain = (best quality over the configurations - best
single's) / best single's; CostSave = 1 - (smallest cost at no lower quality) / best single's cost, not
available when the curve never gets there. CostSave is 1 - QNC when QNC is relative to the best single.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.evaluation.deferral import neutral_cost, peak
from turnout.evaluation.value import Value, interval

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats


@final
@dataclass(frozen=True, slots=True)
class Saving:
    """Share of the best single model's cost that is saved at no lower quality."""

    share: Value
    """In (-inf, 1]; None where the quality is never reached, or an end of the interval lies there."""
    reached: float
    """Share of the resamples in which the quality is reached at all; NaN where the single is free."""

    def __str__(self) -> str:
        share = self.share
        if np.isnan(self.reached):
            return "free"
        if share.value is None:
            return "never"
        if share.low is None and share.high is None and self.reached == 1.0:
            return f"{share.value:.0%}"
        low, high = ("never" if end is None else f"{end:.0%}" for end in (share.low, share.high))
        return f"{share.value:.0%} [{low}, {high}]"


def cost_save(
    cost_usd: Floats,
    quality: Floats,
    *,
    single_usd: Floats | float,
    single_quality: Floats | float,
    allow_mixing: bool = False,
) -> Floats:
    """Return the saving at equal quality, minus infinity where it is never reached.

    Shapes: (..., P) for the curve and (...) for the best single model. NaN where the single is free.
    """
    least = neutral_cost(cost_usd, quality, single_quality, allow_mixing=allow_mixing)
    base = np.asarray(single_usd, dtype=np.float64)
    share = np.full(np.broadcast_shapes(least.shape, base.shape), np.nan)
    np.divide(least, base, out=share, where=base > 0)
    return 1.0 - share


def perf_gain(quality: Floats, *, single_quality: Floats | float) -> Floats:
    """Return the relative gain of the curve's best quality over the best single model's."""
    base = np.asarray(single_quality, dtype=np.float64)
    gain = np.full(np.broadcast_shapes(quality.shape[:-1], base.shape), np.nan)
    np.divide(peak(quality) - base, base, out=gain, where=base > 0)
    return gain


def as_saving(value: float, draws_B: Floats, confidence: float) -> Saving:
    """Return a `Saving` from the point and its resamples, with unreached ones as minus infinity.

    A NaN point says that the best single model costs nothing, so that there is nothing to save.
    """
    reached = float("nan") if np.isnan(value) else float(np.isfinite(draws_B).mean())
    return Saving(interval(value, draws_B, confidence), reached)
