"""This module draws what `bench_adapters` measured: accuracy held-in, renamed and held-out, by method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = {
    "glider_sample": "#2563eb", "glider_task": "#93c5fd", "glider_chosen": "#1e3a8a",
    "phatgoose": "#047857", "arrow": "#d97706", "oracle": "#111827",
}  # fmt: skip


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write three panels of bars with intervals as PNG and return its path."""
    figure = Figure(figsize=(14.0, 6.4), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, sharey=True)
    names = list(result["held_in"])
    _bars(left, "held-in: the task's adapter is in the pool", names, result["held_in"])
    _bars(middle, "renamed: under a name not seen", names, result["renamed"])
    _bars(right, "held-out: it is not", names, result["held_out"])
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _bars(axes: Any, title: str, names: list[str], found: Mapping[str, Any]) -> None:
    for row, name in enumerate(names):
        if name not in found:
            continue
        entry = found[name]
        color = next((c for key, c in COLORS.items() if name.startswith(key)), "#9ca3af")
        axes.barh(row, entry["accuracy"], color=color, height=0.7)
        axes.plot([entry["low"], entry["high"]], [row, row], color="#111827", linewidth=1.0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("share of right answers, 95 % interval")
    axes.set_xlim(0, 1)
