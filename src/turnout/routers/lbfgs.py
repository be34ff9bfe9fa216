"""This module minimises a smooth function by L-BFGS, without chance.

Source: J. Nocedal, "Updating quasi-Newton matrices with limited storage", Mathematics of Computation
35(151), 1980, for the two loops; L. Armijo, Pacific J. Math. 16(1), 1966, for the length of a step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnout.core.outcomes import Floats

_MEMORY = 8
_DECREASE = 1e-4
_HALVINGS = 30


def minimise(
    loss: Callable[[Floats], tuple[float, Floats]], start: Floats, *, steps: int, tolerance: float = 1e-6
) -> Floats:
    """Return where the descent from `start` ends: after `steps`, or where no slope is above `tolerance`.

    `loss` returns its value and gradient, of the shape of `start`. A step is halved until the value falls,
    so the value never rises from one step to the next.
    """
    at, (value, slope) = start, loss(start)
    pairs: list[tuple[Floats, Floats, float]] = []
    for _ in range(steps):
        if float(np.abs(slope).max(initial=0.0)) <= tolerance:
            break
        direction = -_times_inverse(slope, pairs)
        falling = float((direction * slope).sum())
        if falling >= 0.0:
            direction, pairs, falling = -slope, [], -float((slope * slope).sum())
        length = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(slope).sum()))
        for _ in range(_HALVINGS):
            next_value, next_slope = loss(at + length * direction)
            if next_value <= value + _DECREASE * length * falling:
                break
            length /= 2.0
        else:
            break
        moved, turned = length * direction, next_slope - slope
        curvature = float((moved * turned).sum())
        if curvature > 1e-12:
            pairs = [*pairs[-(_MEMORY - 1) :], (moved, turned, curvature)]
        at, value, slope = at + moved, next_value, next_slope
    return at


def _times_inverse(slope: Floats, pairs: list[tuple[Floats, Floats, float]]) -> Floats:
    """Return the product of the approximate inverse Hessian with the slope."""
    shares = []
    product = slope
    for moved, turned, curvature in reversed(pairs):
        share = float((moved * product).sum()) / curvature
        shares.append(share)
        product = product - share * turned
    if pairs:
        _, turned, curvature = pairs[-1]
        product = product * (curvature / float((turned * turned).sum()))
    for (moved, turned, curvature), share in zip(pairs, reversed(shares), strict=True):
        product = product + (share - float((turned * product).sum()) / curvature) * moved
    return product
