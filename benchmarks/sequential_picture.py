"""This module draws what `bench_sequential` measured: frontiers, and shares of the optimum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

STYLES = {
    "learned": {"color": "#2563eb", "marker": "o"},
    "one-shot kNN": {"color": "#d97706", "marker": "s"},
    "one-shot auto": {"color": "#dc2626", "marker": "D"},
    "cascade": {"color": "#059669", "marker": "^"},
    "best single": {"color": "#6b7280", "marker": "v"},
    "random": {"color": "#9ca3af", "marker": "X"},
    "oracle": {"color": "#111827", "marker": "p"},
    "optimum, simulated": {"color": "#111827", "marker": "o", "linestyle": "--"},
}
"""Colour and mark of each method, so that those can be told apart whose intervals lie on one another."""


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one panel per table and one for the synthetic task as PNG; return its path."""
    tables = result["tables"]
    num = len(tables) + 1
    columns = min(num, 3)
    rows = -(-num // columns)
    figure = Figure(figsize=(5.0 * columns, 4.0 * rows), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, found) in zip(panels, tables.items(), strict=False):
        _frontier(axes, name, found)
    _shares(panels[len(tables)], result["synthetic"])
    for axes in panels[num:]:
        axes.set_axis_off()
    # One legend below all panels: inside of one it lay on the error bars.
    found = [axes.get_legend_handles_labels() for axes in panels[:num]]
    marks = {label: mark for marks, labels in found for mark, label in zip(marks, labels, strict=True)}
    figure.legend(marks.values(), marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _frontier(axes: Any, name: str, found: Mapping[str, Any]) -> None:
    for method, style in STYLES.items():
        points = [row["methods"][method] for row in found["prices"] if method in row["methods"]]
        if not points:
            continue
        points = sorted(points, key=lambda item: item["cost"]["value"])
        x = [item["cost"]["value"] * 1000 for item in points]
        y = [item["quality"]["value"] for item in points]
        below = [max(item["quality"]["value"] - item["quality"]["low"], 0) for item in points]
        above = [max(item["quality"]["high"] - item["quality"]["value"], 0) for item in points]
        # Intervals lie behind all lines and marks, and pale, since many stand at the same cost.
        axes.errorbar(x, y, [below, above], color=style["color"], fmt="none", lw=3, alpha=0.22, zorder=1)
        axes.plot(x, y, **style, label=method, markersize=6, lw=1.4, mec="white", mew=0.4)
    unit = "usd" if found["unit"] == "usd" else found["unit"]
    axes.set(title=name, xlabel=f"{unit} per 1,000 queries", ylabel="quality", xscale="log")
    _ticks(axes)


def _shares(axes: Any, rows: list[Mapping[str, Any]]) -> None:
    x = [row["budget_usd"] for row in rows]
    for method, style in STYLES.items():
        if method not in rows[0]["share"]:
            continue
        y = [row["share"][method]["value"] for row in rows]
        low = [row["share"][method]["low"] for row in rows]
        high = [row["share"][method]["high"] for row in rows]
        axes.plot(x, y, **style, label=method, markersize=6, lw=1.4, mec="white", mew=0.4)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.axhline(1.0, color="#d1d5db", linewidth=1)
    axes.set(
        title="synthetic task", xlabel="budget, usd per task", ylabel="share of the optimum", xscale="log"
    )
    _ticks(axes)


def _ticks(axes: Any) -> None:
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
