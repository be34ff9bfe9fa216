"""This module fits the scaling law of routed language models and gives the effective parameter count.

Source: S58, Unified Scaling Laws for Routed Language Models (arXiv 2202.01169), equations 1, 7 to 11:

    log10 L(N, E) = a log10 N + b log10 E^ + c log10 N log10 E^ + d
    1 / E^ = 1 / (E - 1 + 1 / (1 / e_start - 1 / e_max)) + 1 / e_max

with N the parameters that a token meets without routing (its base), E the number of experts, and E^ a count
that begins at `e_start` for E = 1 and saturates at `e_max`. The effective parameter count is the N of a
model without experts that has the same loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnout.core.errors import InputError, NotFittedError, ShapeError, sentence
from turnout.nn.analysis.table import Table

Floats = npt.NDArray[np.float64]
Solve = Callable[[float, float], tuple[float, Floats]]
"""From (e_start, e_max) to the mean squared error and the four linear numbers."""

ROUNDS = 24
"""How often the grid around the best (e_start, e_max) is made finer."""
POINTS = 9
"""Points of the grid along each of the two."""


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """The six numbers of the law; `rmse` is that of log10 loss on what was fitted."""

    a: float
    b: float
    c: float
    d: float
    e_start: float
    e_max: float
    rmse: float = float("nan")

    def saturated(self, num_experts: npt.ArrayLike) -> Floats:
        """Return E^, from e_start at E = 1 towards e_max."""
        return _saturated(np.asarray(num_experts, np.float64), self.e_start, self.e_max)

    def loss(self, num_params: npt.ArrayLike, num_experts: npt.ArrayLike) -> Floats:
        """Return the predicted loss, in the unit of the losses that were fitted."""
        n, e = np.log10(np.asarray(num_params, np.float64)), np.log10(self.saturated(num_experts))
        exponent: Floats = self.a * n + self.b * e + self.c * n * e + self.d
        return np.power(10.0, exponent)

    def slope(self, num_experts: npt.ArrayLike) -> Floats:
        """Return d log L / d log N at this number of experts: a + c log10 E^."""
        return np.asarray(self.a + self.c * np.log10(self.saturated(num_experts)))

    def effective_params(self, num_params: npt.ArrayLike, num_experts: npt.ArrayLike) -> Floats:
        """Return the base size without experts of equal loss; its law: loss(EPC(N, E), 1) = loss(N, E)."""
        n, e = np.log10(np.asarray(num_params, np.float64)), np.log10(self.saturated(num_experts))
        start = math.log10(self.e_start)
        single = self.a + self.c * start
        exponent = ((self.a + self.c * e) * n + self.b * (e - start)) / single
        return np.power(10.0, exponent)

    def cutoff(self) -> float:
        """Return the base size from which more experts do not help: 10 ** (-b / c); infinite for c <= 0."""
        return 10 ** (-self.b / self.c) if self.c > 0 else math.inf


def fit_scaling(num_params: npt.ArrayLike, num_experts: npt.ArrayLike, loss: npt.ArrayLike) -> ScalingLaw:
    """Fit the law to runs by least squares of log10 loss.

    The four linear numbers are solved for exactly; the two of the saturation by a grid that is made finer
    around its best point. Raises `InputError` where six numbers cannot be told from the runs.
    """
    n, e, y = (np.asarray(v, np.float64).ravel() for v in (num_params, num_experts, loss))
    if not len(n) == len(e) == len(y):
        got = f"{len(n)}, {len(e)}, {len(y)}"
        raise ShapeError(sentence("fit_scaling: sizes, experts, losses", allowed="as many of each", got=got))
    if len(n) < 7 or len(np.unique(n)) < 2 or len(np.unique(e)) < 4:
        got = f"{len(n)} runs of {len(np.unique(n))} sizes and {len(np.unique(e))} numbers of experts"
        raise InputError(
            sentence("fit_scaling", allowed="7 runs, 2 sizes and 4 numbers of experts or more", got=got)
        )
    if not (np.isfinite(n) & np.isfinite(e) & np.isfinite(y) & (n > 1) & (e >= 1) & (y > 0)).all():
        raise InputError(sentence("fit_scaling", allowed="sizes above 1, experts from 1, losses above 0"))
    log_n, log_y = np.log10(n), np.log10(y)

    def solve(start: float, top: float) -> tuple[float, Floats]:
        log_e = np.log10(_saturated(e, start, top))
        design = np.column_stack([log_n, log_e, log_n * log_e, np.ones_like(log_n)])
        scale = np.abs(design).max(axis=0)
        found = np.linalg.lstsq(design / scale, log_y, rcond=None)[0] / scale
        return float(np.square(design @ found - log_y).mean()), found

    start, top = _search(solve, e_most=float(e.max()))
    error, (a, b, c, d) = solve(start, top)
    return ScalingLaw(
        a=float(a), b=float(b), c=float(c), d=float(d), e_start=start, e_max=top, rmse=math.sqrt(error)
    )


def scaling_table(law: ScalingLaw, num_params: npt.ArrayLike, num_experts: npt.ArrayLike) -> Table:
    """Return predicted loss and effective parameter count of each pair of size and number of experts."""
    if math.isnan(law.a):
        raise NotFittedError(sentence("scaling_table: law", allowed="a fitted law", got="none"))
    rows = []
    for size in np.atleast_1d(np.asarray(num_params, np.float64)):
        for experts in np.atleast_1d(np.asarray(num_experts, np.float64)):
            effective = float(law.effective_params(size, experts))
            rows.append(
                (float(size), int(experts), float(law.loss(size, experts)), effective, effective / size)
            )
    return Table(
        title="Effective parameter count",
        columns=("params", "experts", "loss", "effective_params", "factor"),
        rows=tuple(rows),
        note=f"more experts help up to a base of {law.cutoff():.3g} parameters (where the law holds).",
    )


def _saturated(experts: Floats, start: float, top: float) -> Floats:
    offset = 1 / (1 / start - 1 / top)
    result: Floats = 1 / (1 / (experts - 1 + offset) + 1 / top)
    return result


def _search(solve: Solve, *, e_most: float) -> tuple[float, float]:
    """Return the (e_start, e_max) of least error: e_start from 1 on, e_max from the experts seen on."""
    seen = math.log10(e_most)
    first, second = (0.0, 1.5), (seen, seen + 4.0)
    best = (math.inf, first[0], second[1])
    for _ in range(ROUNDS):
        for start in np.linspace(*first, POINTS):
            for top in np.linspace(*second, POINTS):
                if top > start + 1e-6:
                    best = min(best, (solve(10.0**start, 10.0**top)[0], float(start), float(top)))
        reach, height = 0.35 * (first[1] - first[0]), 0.35 * (second[1] - second[0])
        first = (max(best[1] - reach, 0.0), best[1] + reach)
        second = (best[2] - height, best[2] + height)
    return 10.0 ** best[1], 10.0 ** best[2]
