"""This module draws what `bench_auto` measured: quality beyond each rival's, set by set, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RIVALS = {
    "best_single": ("beyond the best single model", "#111827"),
    "knn": ("beyond kNN", "#2563eb"),
    "group_mean": ("beyond the group mean, tasks given", "#047857"),
}


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one panel per rival as PNG and return its path."""
    sets = list(result["sets"])
    figure = Figure(figsize=(11.0, 1.0 + 0.36 * len(sets)), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(RIVALS), sharey=True)
    for axes, (rival, (title, color)) in zip(panels, RIVALS.items(), strict=True):
        for row, name in enumerate(sets):
            found = result["sets"][name]["against"][rival]
            low, high = 100 * found["low"], 100 * found["high"]
            axes.plot([low, high], [row, row], color=color, linewidth=2.0, solid_capstyle="butt")
            axes.plot(100 * found["value"], row, "o", color=color, markersize=4)
        axes.axvline(0.0, color="#9ca3af", linewidth=0.9)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("points of quality", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(sets)), sets)
    panels[0].invert_yaxis()
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path
