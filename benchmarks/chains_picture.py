"""This module draws what `bench_depth_chains` measured: quality against layers, and layers against need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#111827"
Style = dict[str, Any]
CURVES: dict[str, tuple[str, Style]] = {
    "random": ("random skip", {"color": "#9ca3af", "marker": ".", "linestyle": "--"}),
    "fixed": ("best fixed skip", {"color": "#374151", "marker": "s", "linestyle": ":"}),
    "own": ("router, each its own path", {"color": "#d97706", "marker": "v"}),
    "shared": ("router, shared paths", {"color": "#2563eb", "marker": "o", "linewidth": 2.2}),
}
POINTS: dict[str, tuple[str, Style]] = {
    "dense": ("dense", {"color": INK, "marker": "*", "markersize": 11}),
    "labels": ("shortest paths found", {"color": "#047857", "marker": "D"}),
}


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write both panels, means over all bases, as PNG and return its path."""
    figure = Figure(figsize=(11.5, 4.6), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _quality(left, result["rows"])
    _need(right, [base["levels"] for base in result["bases"]])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _quality(axes: Axes, rows: Mapping[str, Any]) -> None:
    for key, (label, style) in CURVES.items():
        found = [line for name, line in rows.items() if name.startswith(f"{key} ")]
        found.sort(key=lambda line: line["executed_layers"]["mean"])
        x = [line["executed_layers"]["mean"] for line in found]
        y = np.array([[line["quality"][end] for end in ("low", "mean", "high")] for line in found])
        axes.plot(x, y[:, 1], label=label, **{"linewidth": 1.6, "markersize": 5, **style})
        axes.fill_between(x, y[:, 0], y[:, 2], color=style["color"], alpha=0.15, linewidth=0)
    for key, (label, style) in POINTS.items():
        line = rows[key]
        axes.plot(
            line["executed_layers"]["mean"], line["quality"]["mean"], label=label, linestyle="", **style
        )
    axes.set_xlabel("executed layers, mean over questions")
    axes.set_ylabel("share of right answers")
    axes.set_title("held-out questions, means over bases")


def _need(axes: Axes, bases: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    steps = [line["steps"] for line in bases[0]]
    for name, style in (
        ("labels", POINTS["labels"][1]),
        ("shared", CURVES["shared"][1]),
        ("own", CURVES["own"][1]),
        ("fixed", CURVES["fixed"][1]),
    ):
        layers_BS = np.array([[line[name]["layers"] for line in base] for base in bases])
        axes.plot(steps, layers_BS.mean(axis=0), **style)
    axes.set_xticks(steps)
    axes.set_xlabel("steps of the question")
    axes.set_ylabel("executed layers")
    axes.set_title("at the chosen settings", fontsize=10)
