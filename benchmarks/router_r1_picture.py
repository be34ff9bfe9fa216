"""This module draws what `bench_router_r1` measured: training curves, and held-out results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SMOOTH = 10


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one row of three panels per table as PNG and return its path."""
    tables = result["tables"]
    figure = Figure(figsize=(12.0, 3.6 * len(tables)), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(tables), 3, squeeze=False)
    for row, (name, found) in enumerate(tables.items()):
        _curves(axes[row][0], name, found)
        _bars(axes[row][1], "reward, held out", found["reward"], found)
        _bars(axes[row][2], "share of valid formats, held out", found["valid"], None)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _curves(axes: Any, name: str, found: Mapping[str, Any]) -> None:
    for history in found["history"]:
        width = min(_SMOOTH, len(history))
        smooth = np.convolve(history, np.ones(width) / width, mode="valid")
        axes.plot(np.arange(len(smooth)) + width, smooth, linewidth=1.2)
    axes.set_title(f"{name}: reward in training, one line a seed", fontsize=10)
    axes.set_xlabel(f"update (mean of {_SMOOTH})")


def _bars(axes: Any, title: str, found: Mapping[str, Any], whole: Mapping[str, Any] | None) -> None:
    for place, (key, color) in enumerate((("before", "#9ca3af"), ("after", "#2563eb"))):
        entry = found[key]
        axes.bar(place, entry["mean"], color=color, width=0.6)
        axes.plot([place, place], [entry["low"], entry["high"]], color="#111827", linewidth=1.2)
    axes.set_xticks([0, 1], ["warm start", "after GRPO"])
    if whole is not None:
        lines = {"best single": whole["best_single"]["reward"], "oracle of singles": whole["oracle_single"]}
        if "agreement" in whole:
            lines["two, a third where they differ"] = whole["agreement"]["reward"]
        for (label, entry), style in zip(lines.items(), ("--", ":", "-."), strict=False):
            axes.axhline(entry["mean"], color="#111827", linewidth=1.0, linestyle=style, label=label)
        axes.legend(fontsize=8)
    axes.axhline(0, color="#111827", linewidth=0.6)
    axes.set_title(title, fontsize=10)
