"""This module starts a newcomer: along which direction its probe rows gain, or from what is usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.ground import Lesson
from turnout.routers.least_squares import solve
from turnout.routers.neighbours import Array

_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, slots=True)
class Direction:
    """A ridge regression of quality on vectors, with a penalty of least leave-one-out error."""

    weight_D: Floats
    centre_D: Floats
    level: float
    """Mean quality, which is predicted at the centre."""
    left_out_N1: Floats
    """What the other rows say of each row."""
    quality_N1: Floats


def find_direction(z_ND: Array, lesson: Lesson) -> Direction:
    """Return the direction of a lesson of one candidate, over its rows of known quality."""
    known_N = np.isfinite(lesson.targets.quality_QM[:, 0])
    quality_N1 = lesson.targets.quality_QM[known_N]
    found = solve(z_ND[known_N].astype(np.float64), quality_N1, _PENALTIES)
    return Direction(
        found.weight_FH[:, 0], found.centre_F, float(found.intercept_H[0]), found.left_out_NH, quality_N1
    )


def usual_parameters(
    net: Mapping[str, np.ndarray], own: Sequence[str], quality: Floats
) -> dict[str, np.ndarray]:
    """Return what a newcomer's own parameters are before its probes: the pool's means, and its own level.

    `quality` is its mean quality, of shape (1,); the level is the logit of it.
    """
    level = np.clip(quality, 0.01, 0.99)
    usual = {name: net[name].mean(axis=0, keepdims=True) for name in own}
    return {**usual, "level": np.log(level / (1.0 - level))}
