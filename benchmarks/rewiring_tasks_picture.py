"""This module draws what rewiring did to the share of right answers, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one panel per kind of prompts: the change of the share of right answers with its interval."""
    kinds = result["kinds"]
    figure = Figure(figsize=(3.4 * len(kinds) + 2.4, 3.8), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (kind, arms) in zip(all_axes, kinds.items(), strict=True):
        names = [name for name in arms if name != "dense"]
        for row, name in enumerate(names):
            line = arms[name]["right_change"]
            color = "#9ca3af" if name.startswith("random") else "#2563eb"
            axes.plot([line["low"], line["high"]], [row, row], color=color, linewidth=2)
            axes.plot(line["value"], row, "o", color=color)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(f"{kind}: {arms['dense']['right']['value']:.2f} right as it is", fontsize=9)
        axes.set_xlabel("change of the share of right answers", fontsize=8)
    all_axes[0].invert_yaxis()
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path
