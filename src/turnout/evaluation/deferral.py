"""This module measures a deferral curve: the area under it, its peak, and the cost of equal quality.

A deferral curve is the sweep of a dual price, as (mean cost, mean quality). Its three numbers are those
of UniRoute (arXiv 2502.08773, section 6): area, peak quality, and the quality-neutral cost (QNC), the
smallest cost at which the curve is as good as the best single model. Unlike AIQ the area is that of the
points themselves in order of cost, each as good as the best one that costs no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.evaluation.aiq import check_range
from turnout.evaluation.hull import integral

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats

SLACK = 1e-12
"""Rounding allowed when a quality is compared with the one it has to reach."""


def area(cost_usd: Floats, quality: Floats, *, low_usd: float, high_usd: float) -> Floats:
    """Return the area under the curve over [low, high] divided by the width, along the last axis.

    Shapes: (..., P) in, (...) out. Neighbouring points are joined by straight lines; budgets below the
    cheapest point count as quality 0. Units: quality.
    """
    check_range(low_usd, high_usd)
    order = np.argsort(cost_usd, axis=-1, kind="stable")
    cost = np.take_along_axis(cost_usd, order, axis=-1)
    best = np.maximum.accumulate(np.take_along_axis(quality, order, axis=-1), axis=-1)
    return integral(cost, best, low_usd, high_usd) / (high_usd - low_usd)


def peak(quality: Floats) -> Floats:
    """Return the best quality of the sweep, along the last axis."""
    best: Floats = quality.max(axis=-1)
    return best


def neutral_cost(
    cost_usd: Floats, quality: Floats, target: Floats | float, *, allow_mixing: bool = False
) -> Floats:
    """Return the smallest cost in USD per query whose quality is at least `target`; infinity if none.

    Shapes: (..., P) and (...) in, (...) out. With `allow_mixing` two points may be mixed at random, which
    reaches every point on the segment between them, in expectation only.
    """
    goal = np.asarray(target, dtype=np.float64)[..., None]
    reaches = quality >= goal - SLACK
    cheapest: Floats = np.where(reaches, cost_usd, np.inf).min(axis=-1)
    if not allow_mixing:
        return cheapest
    gap = quality[..., None, :] - quality[..., :, None]
    is_pair = ~reaches[..., :, None] & reaches[..., None, :]
    share = (goal - quality)[..., :, None] / np.where(is_pair, gap, 1.0)
    mixed = cost_usd[..., :, None] + share * (cost_usd[..., None, :] - cost_usd[..., :, None])
    cheapest_mixed: Floats = np.where(is_pair, mixed, np.inf).min(axis=(-2, -1))
    return np.minimum(cheapest, cheapest_mixed)
