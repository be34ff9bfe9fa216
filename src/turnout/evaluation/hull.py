"""This module draws the best that a set of points allows: the non-decreasing concave envelope.

Between two points of a curve one may flip a coin, so every point on the segment can be reached in
expectation; beyond the best point one may spend more for nothing. What remains is the least
non-decreasing concave function above the points, which RouterBench (arXiv 2403.12031, section 3) calls
the non-decreasing convex hull.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Floats, Ints


def hull(cost_P: Floats, quality_P: Floats) -> Ints:
    """Return the indices of the points on the envelope, by rising cost and rising quality.

    Cost: O(P log P). Of equal points the first stands for all.
    """
    order = np.lexsort((-quality_P, cost_P))
    cost, quality = cost_P.tolist(), quality_P.tolist()
    kept: list[int] = []
    for point in order.tolist():
        if kept and quality[point] <= quality[kept[-1]]:
            continue
        while kept and cost[kept[-1]] == cost[point]:
            kept.pop()
        while len(kept) > 1 and _is_below(kept[-2], kept[-1], point, cost, quality):
            kept.pop()
        kept.append(point)
    return np.array(kept, dtype=np.int64)


def integral(cost_P: Floats, quality_P: Floats, low: float, high: float) -> Floats:
    """Integrate the line through points of rising cost over [low, high], along the last axis.

    The line is flat after the last point and zero before the first one: a budget below the cheapest
    point buys nothing.
    """
    left, right = cost_P[..., :-1], cost_P[..., 1:]
    a, b = np.clip(left, low, high), np.clip(right, low, high)
    width = np.where(right > left, right - left, 1.0)
    slope = (quality_P[..., 1:] - quality_P[..., :-1]) / width
    middle = quality_P[..., :-1] + slope * ((a + b) / 2.0 - left)
    tail = (high - np.clip(cost_P[..., -1], low, high)) * quality_P[..., -1]
    area: Floats = (middle * (b - a)).sum(axis=-1) + tail
    return area


def on_hull(cost_P: Floats, quality_P: Floats) -> Bools:
    """Return whether each point lies on the envelope, shape (P,)."""
    mask = np.zeros(cost_P.size, dtype=np.bool_)
    mask[hull(cost_P, quality_P)] = True
    return mask


def _is_below(first: int, middle: int, last: int, cost: list[float], quality: list[float]) -> bool:
    """Whether the middle point lies on or below the segment between the other two."""
    rise = (quality[middle] - quality[first]) * (cost[last] - cost[first])
    chord = (quality[last] - quality[first]) * (cost[middle] - cost[first])
    return rise <= chord
