"""This module draws what `bench_auto_unseen` measured: quality beyond each rival's, regime by regime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RIVALS = {
    "best_single": ("beyond the best single model", "#111827"),
    "knn": ("beyond kNN", "#2563eb"),
    "group_mean": ("beyond the group mean, tasks told", "#047857"),
}
BELOW = "#dc2626"


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one panel per rival as PNG and return its path.

    A line is an interval of the one family, a dot the recorded difference, a ring the true one.
    """
    regimes = result["regimes"]
    names = sorted(regimes, key=lambda name: -regimes[name]["against"]["best_single"]["true"])
    figure = Figure(figsize=(12.0, 1.2 + 0.24 * len(names)), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(RIVALS), sharey=True)
    for axes, (rival, (title, color)) in zip(panels, RIVALS.items(), strict=True):
        for row, name in enumerate(names):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", linewidth=0)
            found = regimes[name]["against"].get(rival)
            if found is None:
                continue
            shade = BELOW if found["high"] < 0 else color
            axes.plot([100 * found["low"], 100 * found["high"]], [row, row], color=shade, linewidth=1.6)
            axes.plot(100 * found["value"], row, "o", color=shade, markersize=3)
            axes.plot(100 * found["true"], row, "o", color="none", markeredgecolor=shade, markersize=6)
        axes.axvline(0.0, color="#9ca3af", linewidth=0.9)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("points of quality", fontsize=8)
        axes.tick_params(labelsize=7, length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(names)), [_label(name, regimes[name]) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _label(name: str, cell: Mapping[str, Any]) -> str:
    return f"{name}  ({cell['train']:,} x {cell['candidates']})"
