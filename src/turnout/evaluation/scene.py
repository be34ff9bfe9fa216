"""This module decides what the picture of a report shows, before anything is drawn.

The scene is in data units (USD per 1,000 queries, quality) and holds lines with bands, marked points and
axes; `plots` draws it with matplotlib and `drawing` as SVG, so both show the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, final

import numpy as np

from turnout.evaluation.hull import hull

if TYPE_CHECKING:
    from turnout.evaluation.report import Curve, Report, Row

Role = Literal["run-0", "run-1", "run-2", "run-3", "single", "group", "random", "oracle", "best"]

WIDE_RANGE = 8.0
"""Costs that differ by more than this factor are shown on a logarithmic axis."""
NUM_BETWEEN = 12
"""Points drawn on each segment of the envelope."""
MAX_NAME = 30
"""Characters of a label; longer names lose their middle."""


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """A quality-cost curve: the points of a sweep that no cheaper point beats, by rising cost."""

    role: Role
    is_main: bool
    """Whether it is the first run's: it is drawn heavier, and with its band of intervals."""
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Mark:
    """One marked point; `low` and `high` are its interval in quality."""

    role: Role
    x: float
    y: float
    low: float
    high: float
    label: str
    is_important: bool
    """Whether its label must be shown even where there is little room."""


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """Range and ticks of one axis."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return where the value lies along the axis, 0 to 1."""
        if self.is_log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@final
@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is drawn, the most important marks first."""

    lines: tuple[Line, ...]
    mixes: Line | None
    """The envelope of the single candidates: what a coin between two of them buys, for those who know
    beforehand which two; None when it is a point."""
    marks: tuple[Mark, ...]
    """Marks at one place are one mark that bears both names."""
    x: Axis
    y: Axis


def make_scene(report: Report) -> Scene | None:
    """Return the picture of quality against cost; None without costs."""
    if not report.has_costs:
        return None
    runs = [row for row in report.rows if row.kind == "run"]
    roles = {row.name: run_role(index) for index, row in enumerate(runs)}
    lines = [_line(roles[row.name], row.curve, row is runs[0]) for row in runs if row.curve is not None]
    marks = _merged(
        [_mark(row, roles.get(row.name) or _BASELINE_ROLES[row.name], report) for row in report.rows]
    )
    marks += [
        Mark(
            role="single",
            x=single.usd_per_1k.value,
            y=single.quality.value,
            low=single.quality.value,
            high=single.quality.value,
            label=short(single.name),
            is_important=False,
        )
        for single in sorted(report.singles, key=lambda single: -(single.quality.value or 0.0))
        if single.usd_per_1k is not None
        and single.usd_per_1k.value is not None
        and single.quality.value is not None
        and single.name != report.best_single
    ]
    is_log, xs = _costs(marks, lines)
    # A free model has no place on a logarithmic axis: it stands at the left edge.
    floor = min(x for x in xs if x > 0) / 2 if is_log else -math.inf
    marks = [_moved(mark, floor) for mark in marks]
    lines = [line for line in (_clipped(line, floor) for line in lines) if len(line.xs) > 1]
    mixes = _clipped(_mixes(report), floor)
    xs = [mark.x for mark in marks] + [x for line in lines for x in line.xs]
    ys = [end for mark in marks for end in (mark.low, mark.high)]
    ys += [y for line in lines for y in (*line.lows, *line.highs)]
    return Scene(
        lines=tuple(lines),
        mixes=mixes if len(mixes.xs) > 1 else None,
        marks=tuple(marks),
        x=_cost_axis(xs, is_log),
        y=quality_axis(min(ys), max(ys)),
    )


def run_role(index: int) -> Role:
    """Return the colour slot of the run of this rank."""
    roles: tuple[Role, ...] = ("run-0", "run-1", "run-2", "run-3")
    return roles[index % len(roles)]


def short(name: str) -> str:
    """Return a name without its provider, and without its middle where it is long."""
    tail = name.rsplit("/", 1)[-1]
    if len(tail) <= MAX_NAME:
        return tail
    half = (MAX_NAME - 2) // 2
    return f"{tail[:half]}..{tail[-half:]}"


def quality_axis(low: float, high: float) -> Axis:
    """Return a linear axis with round ticks around [low, high]."""
    pad = max(0.06 * (high - low), 0.005)
    low, high = max(low - pad, -0.02), min(high + pad, 1.02)
    step = _step((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    ticks = [k * step for k in range(first, math.floor(high / step) + 1)]
    return Axis(low=low, high=high, is_log=False, ticks=tuple((tick, f"{tick:.{digits}f}") for tick in ticks))


_BASELINE_ROLES: dict[str, Role] = {
    "best single": "best",
    "best per group": "group",
    "random": "random",
    "oracle": "oracle",
}


def _mark(row: Row, role: Role, report: Report) -> Mark:
    cost, quality = row.usd_per_1k, row.quality
    assert cost is not None
    assert cost.value is not None
    assert quality.value is not None
    label = f"best single: {short(report.best_single)}" if row.name == "best single" else row.name
    return Mark(
        role=role,
        x=cost.value,
        y=quality.value,
        low=quality.value if quality.low is None else quality.low,
        high=quality.value if quality.high is None else quality.high,
        label=label,
        is_important=True,
    )


def _merged(marks: list[Mark]) -> list[Mark]:
    """Join marks of one place: a router that stepped aside stands exactly on the best single model."""
    found: dict[tuple[float, float], Mark] = {}
    for mark in marks:
        place = mark.x, mark.y
        if place in found:
            mark = replace(found[place], label=f"{found[place].label} = {mark.label}")
        found[place] = mark
    return list(found.values())


def _line(role: Role, curve: Curve, is_main: bool) -> Line:
    points = [
        (point.usd_per_1k.value, point.quality)
        for point in curve.points
        if point.usd_per_1k is not None and point.usd_per_1k.value is not None
    ]
    points.sort(key=lambda pair: (pair[0], -(pair[1].value or 0.0)))
    kept: list[tuple[float, float, float, float]] = []
    for cost, quality in points:
        value = quality.value or 0.0
        if not kept or value > kept[-1][1]:
            low = value if quality.low is None else quality.low
            high = value if quality.high is None else quality.high
            kept.append((cost, value, low, high))
    xs, ys, lows, highs = zip(*kept, strict=True)
    return Line(role=role, is_main=is_main, xs=xs, ys=ys, lows=lows, highs=highs)


def _mixes(report: Report) -> Line:
    """Return the envelope of the single candidates, with points between so that a log axis bends it."""
    points = [
        (single.usd_per_1k.value, single.quality.value)
        for single in report.singles
        if single.usd_per_1k is not None
        and single.usd_per_1k.value is not None
        and single.quality.value is not None
    ]
    costs, qualities = np.array([x for x, _ in points]), np.array([y for _, y in points])
    kept = hull(costs, qualities)
    xs: list[float] = []
    for left, right in pairwise(kept.tolist()):
        xs += np.linspace(costs[left], costs[right], NUM_BETWEEN, endpoint=False).tolist()
    xs += costs[kept[-1:]].tolist()
    ys = tuple(np.interp(xs, costs[kept], qualities[kept]).tolist())
    return Line(role="single", is_main=False, xs=tuple(xs), ys=ys, lows=ys, highs=ys)


def _costs(marks: list[Mark], lines: list[Line]) -> tuple[bool, list[float]]:
    xs = [mark.x for mark in marks] + [x for line in lines for x in line.xs]
    paid = [x for x in xs if x > 0]
    return bool(paid) and max(paid) > WIDE_RANGE * min(paid), xs


def _moved(mark: Mark, floor: float) -> Mark:
    if mark.x >= floor:
        return mark
    label = f"{mark.label} (free)" if mark.x == 0 else mark.label
    return replace(mark, x=floor, label=label)


def _clipped(line: Line, floor: float) -> Line:
    keep = [index for index, x in enumerate(line.xs) if x >= floor]

    def of(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(values[index] for index in keep)

    return replace(line, xs=of(line.xs), ys=of(line.ys), lows=of(line.lows), highs=of(line.highs))


def _cost_axis(xs: list[float], is_log: bool) -> Axis:
    low, high = min(xs), max(xs)
    if not is_log:
        pad = 0.06 * (high - low) or 1.0
        low, high = max(low - pad, 0.0), high + pad
        step = _step((high - low) / 5)
        ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return Axis(low=low, high=high, is_log=False, ticks=tuple((tick, f"${tick:g}") for tick in ticks))
    low, high = low / 1.35, high * 1.6
    factors = (1, 2, 5) if high < 120 * low else (1,) if high > 20_000 * low else (1, 3)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**decade for decade in decades for factor in factors]
    shown = tuple((value, f"${value:g}") for value in values if low <= value <= high)
    return Axis(low=low, high=high, is_log=True, ticks=shown)


def _step(rough: float) -> float:
    """Return the round number (1, 2 or 5 times a power of ten) at or above `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
