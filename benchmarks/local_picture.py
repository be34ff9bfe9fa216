"""This module draws what `bench_local` measured: where the dial goes, and whom it asks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from turnout.evaluation.labels import Box, Wish, place

INK, BLUE, GREY, GREEN = "#111827", "#2563eb", "#6b7280", "#047857"
SHADES = ("#93c5fd", "#fcd34d", "#f59e0b", "#b45309", "#7c3aed", "#9ca3af")


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write quality against cost, and the share that each candidate serves, as PNG; return its path."""
    figure = Figure(figsize=(11.5, 4.4), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _frontier(left, result)
    _served(right, result)
    figure.draw_without_rendering()  # the labels look for room in the panel as it ends up
    _name(left, result)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _frontier(axes: Axes, result: Mapping[str, Any]) -> None:
    for name, line in result["fixed"].items():
        colour = GREEN if name == "oracle" else GREY
        x, y = 1e9 * line["usd_per_1k"][0], line["quality"]
        axes.errorbar(
            x, y[0], [[y[0] - y[1]], [y[2] - y[0]]], fmt="*" if name == "oracle" else "o", color=colour
        )
    x = [1e9 * line["usd_per_1k"][0] for line in result["dial"]]
    y_DE = np.array([line["quality"] for line in result["dial"]])
    axes.plot(
        x, y_DE[:, 0], "o-", color=BLUE, markersize=5, label="the dial, from worth nothing to worth all"
    )
    axes.fill_between(x, y_DE[:, 1], y_DE[:, 2], color=BLUE, alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_xlabel("billionths of a usd per 1,000 questions")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"{result['questions']} held-out questions", fontsize=10)
    axes.legend(loc="lower right", fontsize=8, frameon=False)


def _name(axes: Axes, result: Mapping[str, Any]) -> None:
    """Write each name where it covers neither a mark, nor an interval, nor the dial, nor another name."""
    frame, points = axes.get_window_extent(), 72 / axes.figure.dpi

    def at(x: float, y: float) -> tuple[float, float]:
        """Return the distance from the upper left of the panel, in points."""
        right, up = axes.transData.transform((1e9 * x, y))
        return (right - frame.x0) * points, (frame.y1 - up) * points

    wishes, taken = [], []
    for name, line in result["fixed"].items():
        usd, (value, low, high) = line["usd_per_1k"][0], line["quality"]
        (x, y), top, bottom = at(usd, value), at(usd, high)[1], at(usd, low)[1]
        size = {"width": 4.7 * len(name), "height": 10, "gap": 7, "rise": y - top, "drop": bottom - y}
        wishes.append(Wish(x, y, **size, is_important=True))
        taken += [Box(x - 4, y - 4, x + 4, y + 4), Box(x - 2, top, x + 2, bottom)]
    dial = np.array([at(line["usd_per_1k"][0], line["quality"][0]) for line in result["dial"]])
    for start, end in pairwise(dial):
        taken += [Box(x - 2, y - 2, x + 2, y + 2) for x, y in np.linspace(start, end, 60)]
    bounds = Box(0, 0, frame.width * points, frame.height * points)
    for name, spot in zip(result["fixed"], place(wishes, taken, bounds), strict=True):
        assert spot is not None  # an important one is always given a place
        axes.annotate(
            name,
            (spot.x / bounds.right, 1 - spot.y / bounds.bottom),
            xycoords="axes fraction",
            ha={"start": "left", "middle": "center", "end": "right"}[spot.anchor],
            va="center_baseline",
            fontsize=8,
            color=GREEN if name == "oracle" else GREY,
        )


def _served(axes: Axes, result: Mapping[str, Any]) -> None:
    names = [name for name in result["fixed"] if name not in ("oracle", "random")]
    names.sort(key=lambda name: result["fixed"][name]["usd_per_1k"][0])
    left_D = np.zeros(len(result["dial"]))
    for name, shade in zip(names, SHADES, strict=False):
        share_D = np.array([line["served"].get(name, 0.0) for line in result["dial"]])
        axes.barh(range(len(share_D)), share_D, left=left_D, color=shade, label=name)
        left_D += share_D
    axes.set_yticks(range(len(left_D)), [f"{line['worth_in_mean_costs']:g}" for line in result["dial"]])
    axes.set_ylabel(f"worth of a right answer, in mean costs of {result['serving']['model']}")
    axes.set_xlabel("share of questions")
    axes.set_title("who is asked", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)
