"""This module draws what `bench_sequential` measured: frontiers, and shares of the optimum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = {
    "learned": "#2563eb",
    "one-shot kNN": "#d97706",
    "one-shot auto": "#dc2626",
    "cascade": "#059669",
    "best single": "#6b7280",
    "random": "#9ca3af",
    "oracle": "#111827",
    "optimum, simulated": "#111827",
}


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
    for method, color in COLORS.items():
        points = [row["methods"][method] for row in found["prices"] if method in row["methods"]]
        if not points:
            continue
        points = sorted(points, key=lambda item: item["cost"]["value"])
        x = [item["cost"]["value"] * 1000 for item in points]
        y = [item["quality"]["value"] for item in points]
        below = [max(item["quality"]["value"] - item["quality"]["low"], 0) for item in points]
        above = [max(item["quality"]["high"] - item["quality"]["value"], 0) for item in points]
        axes.errorbar(x, y, yerr=[below, above], color=color, label=method, marker="o", markersize=3, lw=1.2)
    unit = "usd" if found["unit"] == "usd" else found["unit"]
    axes.set(title=name, xlabel=f"{unit} per 1,000 queries", ylabel="quality", xscale="log")


def _shares(axes: Any, rows: list[Mapping[str, Any]]) -> None:
    x = [row["budget_usd"] for row in rows]
    for method, color in COLORS.items():
        if method not in rows[0]["share"]:
            continue
        y = [row["share"][method]["value"] for row in rows]
        low = [row["share"][method]["low"] for row in rows]
        high = [row["share"][method]["high"] for row in rows]
        axes.plot(x, y, color=color, label=method, marker="o", markersize=3)
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    axes.axhline(1.0, color="#d1d5db", linewidth=1)
    axes.set(
        title="synthetic task", xlabel="budget, usd per task", ylabel="share of the optimum", xscale="log"
    )
