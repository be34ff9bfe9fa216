"""This module draws what `bench_routers` measured: quality beyond the best single model, and its price."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from turnout.training.bench.summary import label

Cell = Mapping[str, Any]
SHOWN = {"auto": "#2563eb", "knn": "#ea580c", "group_mean (told)": "#047857", "ridge": "#9333ea"}
STYLES = (("-", "o"), ("--", "s"), ("-.", "D"), ((0, (1, 1)), "v"))
"""Dash and mark of each method that has a colour, so that they can be told apart without it."""
GREY = "#9ca3af"
INK = "#111827"
NUM_BEST = 8
_PER_BAND = 5
"""Sets that stand side by side before a new band begins."""
_CLIP = (-8.0, 6.0)
"""Points of quality beyond the best single model between which pictures show anything."""


def draw(cells: Sequence[Cell], path: Path) -> Path:
    """Write points of quality beyond the best single model, one panel a set, as PNG; return its path.

    Methods stand in the order of their mean over the sets that they ran on; what lies beyond the frame is
    an arrow at its edge.
    """
    ran = [cell for cell in cells if "error" not in cell]
    sets = list(dict.fromkeys(cell["set"] for cell in ran))
    methods = sorted({label(cell) for cell in ran}, key=lambda name: -_mean(name, ran))
    size = (1.35 * len(sets) + 2.2, 1.0 + 0.2 * len(methods))
    figure = Figure(figsize=size, dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        _stripe(axes, len(methods))
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for cell in ran:
            if cell["set"] == name:
                _interval(axes, methods.index(label(cell)), cell)
        axes.set_xlim(*_CLIP)
        axes.set_title(name, fontsize=8, color=INK)
        _bare(axes)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    for tick in panels[0].get_yticklabels():
        tick.set_color(SHOWN.get(tick.get_text(), INK))
    figure.supxlabel(
        "points of quality beyond the best single model, 95 % intervals; (told): knows the tasks",
        fontsize=8,
    )
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def draw_money(cells: Sequence[Cell], path: Path) -> Path:
    """Write quality at three dials, and cost at the best single model's quality, as PNG; return its path."""
    ran = [cell for cell in cells if "error" not in cell and cell["dials"]]
    sets = list(dict.fromkeys(cell["set"] for cell in ran))
    bands = -(-len(sets) // _PER_BAND)
    wide = -(-len(sets) // bands)
    size = (2.3 * wide + 0.8, 6.2 * bands)
    figure = Figure(figsize=size, dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2 * bands, wide, squeeze=False, height_ratios=(1.15, 1.0) * bands)
    for number in range(bands * wide):
        band, column = divmod(number, wide)
        above, below = rows[2 * band][column], rows[2 * band + 1][column]
        if number >= len(sets):
            above.set_axis_off()
            below.set_axis_off()
            continue
        mine = [cell for cell in ran if cell["set"] == sets[number]]
        _dials(above, mine)
        _costs(below, mine)
        above.set_title(sets[number], fontsize=9, color=INK)
    for band in range(bands):
        rows[2 * band][0].set_ylabel("points beyond the best single model", fontsize=8)
    blank = Figure().subplots()
    handles: list[Any] = [
        blank.plot([], [], color=color, label=name, linestyle=style, marker=mark, markersize=4)[0]
        for (name, color), (style, mark) in zip(SHOWN.items(), STYLES, strict=True)
    ]
    handles += blank.plot([], [], color=GREY, linestyle=":", marker="^", label="best of the others")
    handles.append(blank.fill_between([], [], color=GREY, alpha=0.35, label="half of the others"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _mean(method: str, cells: Sequence[Cell]) -> float:
    values = [
        min(max(100 * cell["against_best_single"]["value"], _CLIP[0]), _CLIP[1])
        for cell in cells
        if label(cell) == method
    ]
    return float(sum(values) / len(values))


def _interval(axes: Axes, row: int, cell: Cell) -> None:
    found, color = cell["against_best_single"], SHOWN.get(label(cell), GREY)
    value = 100 * found["value"]
    if value < _CLIP[0]:
        axes.plot(_CLIP[0] + 0.3, row, "<", color=color, markersize=3.5)
        return
    axes.plot([100 * found["low"], 100 * found["high"]], [row, row], color=color, linewidth=1.6)
    axes.plot(value, row, "o", color=color, markersize=3.2)


def _dials(axes: Axes, cells: Sequence[Cell]) -> None:
    """Draw the best quality at a quarter, half and all of the best single model's spend.

    Methods without a colour of their own are a band, from a quarter of them to three quarters, and the best
    of them at each dial: thirty lines of one colour could not be told apart.
    """
    single = next(cell["quality"]["value"] for cell in cells if cell["method"] == "best_single")
    shares = [float(share) for share in next(iter(cells))["dials"]]
    lines = {
        label(cell): [_points(quality, single) for quality in cell["dials"].values()]
        for cell in cells
        if cell["method"] not in ("uniform", "best_single")
    }
    spend = [100 * share for share in shares]
    others = np.array([line for name, line in lines.items() if name not in SHOWN] or [[np.nan] * len(spend)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a dial that nobody reaches has no band
        low, high = np.nanquantile(others, (0.25, 0.75), axis=0)
        best = np.nanmax(others, axis=0)
    axes.fill_between(spend, low, high, color=GREY, alpha=0.35, linewidth=0)
    axes.plot(spend, best, color=GREY, linewidth=1.2, linestyle=":", marker="^", markersize=3)
    for (name, color), (style, mark) in zip(SHOWN.items(), STYLES, strict=True):
        if name in lines:
            axes.plot(
                spend, lines[name], color=color, linewidth=1.5, linestyle=style, marker=mark, markersize=3.5
            )
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_xticks([25, 50, 100], ["25", "50", "100"])
    axes.set_xlabel("spend, % of best single's", fontsize=7)
    axes.margins(y=0.08)
    _bare(axes, left=True)


def _points(quality: float | None, single: float) -> float:
    return np.nan if quality is None else 100 * (quality - single)


def _costs(axes: Axes, cells: Sequence[Cell]) -> None:
    """Draw the cheapest methods at the best single model's quality, with those that are named by colour."""
    reach = [
        cell
        for cell in cells
        if cell["cost_at_best_single"] is not None and cell["cost_at_best_single"]["value"] is not None
    ]
    reach.sort(key=lambda cell: cell["cost_at_best_single"]["value"])
    named = [cell for cell in reach[NUM_BEST:] if label(cell) in SHOWN]
    shown = [*reach[:NUM_BEST], *named]
    for row, cell in enumerate(shown):
        found, color = cell["cost_at_best_single"], SHOWN.get(label(cell), GREY)
        high = 100.0 if found["high"] is None else min(100 * found["high"], 130.0)
        axes.plot([100 * (found["low"] or 0.0), high], [row, row], color=color, linewidth=1.6)
        if found["high"] is None:
            axes.plot(100.0, row, ">", color=color, markersize=4)
        axes.plot(min(100 * found["value"], 130.0), row, "o", color=color, markersize=3.5)
    axes.axvline(100.0, color=INK, linewidth=0.8)
    axes.set_xlim(0.0, 130.0)
    axes.set_yticks(range(len(shown)), [label(cell) for cell in shown])
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_xlabel("cost at its quality, %", fontsize=7)
    _bare(axes, left=True)


def _stripe(axes: Axes, num: int) -> None:
    for row in range(1, num, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", linewidth=0)


def _bare(axes: Axes, *, left: bool = False) -> None:
    axes.tick_params(labelsize=6.5, length=2 if left else 0)
    for side in ("top", "right", *(() if left else ("left",))):
        axes.spines[side].set_visible(False)
