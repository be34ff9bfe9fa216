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
from dataclasses import dataclass, field, replace

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
LEAST_RATIO = 10.0
"""What experts explain of log10 loss, by number of the law, over what noise does; noise alone reaches 4."""
NAMES = ("a", "b", "c", "d", "log10_e_start", "log10_e_max")


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """The six numbers of the law; `rmse` is that of log10 loss on what was fitted.

    `errors` are the standard errors of a, b, c, d, log10 e_start and log10 e_max, and `covariance` (6, 6)
    their squares and products: by the slopes of the law at the fit, and the spread of what it leaves. Where
    runs tell nothing of a number its error is large, or infinite; a law that was not fitted has none.
    """

    a: float
    b: float
    c: float
    d: float
    e_start: float
    e_max: float
    rmse: float = float("nan")
    covariance: tuple[tuple[float, ...], ...] = field(default=(), compare=False, repr=False)

    @property
    def errors(self) -> dict[str, float]:
        """The standard error of each number, by its name."""
        return {
            name: math.sqrt(max(row[place], 0.0))
            for place, (name, row) in enumerate(zip(NAMES, self.covariance, strict=False))
        }

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

    def effective_error(self, num_params: float, num_experts: float) -> float:
        """Return the standard error of log10 of the effective parameters; NaN where none is known."""
        if not self.covariance:
            return math.nan
        slope_6 = _slopes(
            lambda law: np.log10(law.effective_params(num_params, num_experts)), _numbers(self)
        )[0]
        with np.errstate(invalid="ignore"):
            return float(np.sqrt(slope_6 @ np.array(self.covariance) @ slope_6))

    def cutoff(self) -> float:
        """Return the base size from which more experts do not help: 10 ** (-b / c); infinite for c <= 0."""
        return 10 ** (-self.b / self.c) if self.c > 0 else math.inf


def fit_scaling(num_params: npt.ArrayLike, num_experts: npt.ArrayLike, loss: npt.ArrayLike) -> ScalingLaw:
    """Fit the law to runs by least squares of log10 loss.

    The four linear numbers are solved for exactly; the two of the saturation by a grid that is made finer
    around its best point. Raises `InputError` for fewer runs than numbers, and where experts make no
    difference that stands out of the noise, since four of the six numbers are about it. How far the runs
    leave the rest open is said by `ScalingLaw.errors`.
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
    _check_experts_matter(log_n, log_y, error)
    law = ScalingLaw(
        a=float(a), b=float(b), c=float(c), d=float(d), e_start=start, e_max=top, rmse=math.sqrt(error)
    )
    return replace(law, covariance=_covariance(law, n, e))


def scaling_table(law: ScalingLaw, num_params: npt.ArrayLike, num_experts: npt.ArrayLike) -> Table:
    """Return predicted loss and effective parameter count of each pair of size and number of experts.

    The factor has its 95 % interval beside it where the law was fitted.
    """
    if math.isnan(law.a):
        raise NotFittedError(sentence("scaling_table: law", allowed="a fitted law", got="none"))
    rows = []
    for size in np.atleast_1d(np.asarray(num_params, np.float64)):
        for experts in np.atleast_1d(np.asarray(num_experts, np.float64)):
            effective = float(law.effective_params(size, experts))
            spread = float(np.power(10.0, min(1.96 * law.effective_error(size, experts), 300.0)))
            factor = float(effective / size)
            ends = (factor, factor / spread, factor * spread)
            rows.append((float(size), int(experts), float(law.loss(size, experts)), effective, *ends))
    return Table(
        title="Effective parameter count",
        columns=("params", "experts", "loss", "effective_params", "factor", "factor_low", "factor_high"),
        rows=tuple(rows),
        note=f"more experts help up to a base of {law.cutoff():.3g} parameters (where the law holds).",
    )


def _check_experts_matter(log_n: Floats, log_y: Floats, error: float) -> None:
    """Raise unless the law explains clearly more than one in which experts do nothing (an F ratio)."""
    design = np.column_stack([log_n, np.ones_like(log_n)])
    rest = log_y - design @ np.linalg.lstsq(design, log_y, rcond=None)[0]
    bare = float(np.square(rest).mean())
    # Of losses without noise what is left is rounding, on both sides.
    ratio = (bare - error) / 4 / max(error / (len(log_n) - 6), 1e-24)
    if ratio < LEAST_RATIO:
        got = f"{max(ratio, 0.0):.3g} times what the noise explains"
        raise InputError(
            sentence(
                "fit_scaling: what experts explain of the losses",
                allowed=f"{LEAST_RATIO:g} times the noise",
                got=got,
            )
        )


def _numbers(law: ScalingLaw) -> Floats:
    return np.array([law.a, law.b, law.c, law.d, math.log10(law.e_start), math.log10(law.e_max)])


def _slopes(value: Callable[[ScalingLaw], Floats], numbers_6: Floats) -> Floats:
    """Return the slopes (N, 6) of what is said of a law in its six numbers, by differences."""
    columns = []
    for place in range(6):
        step = 1e-6 * max(abs(numbers_6[place]), 1e-2)
        ends = []
        for sign in (1.0, -1.0):
            moved = numbers_6.copy()
            moved[place] += sign * step
            a, b, c, d, start, top = moved.tolist()
            ends.append(
                np.atleast_1d(value(ScalingLaw(a=a, b=b, c=c, d=d, e_start=10**start, e_max=10**top)))
            )
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.column_stack(columns)


def _covariance(law: ScalingLaw, n: Floats, e: Floats) -> tuple[tuple[float, ...], ...]:
    """Return the covariance of the six numbers; infinite variances where runs cannot tell them apart."""
    slope_N6 = _slopes(lambda at: np.log10(at.loss(n, e)), _numbers(law))
    norm_6 = np.linalg.norm(slope_N6, axis=0)
    spread = law.rmse**2 * len(n) / (len(n) - 6)
    if not (norm_6 > 0).all() or np.linalg.cond(slope_N6 / norm_6) > 1e7:
        return tuple(tuple(math.inf if i == j else 0.0 for j in range(6)) for i in range(6))
    unit_N6 = slope_N6 / norm_6
    found = spread * np.linalg.inv(unit_N6.T @ unit_N6) / np.outer(norm_6, norm_6)
    return tuple(tuple(map(float, row)) for row in found)


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
