"""This module draws what `bench_duo` measured: loss at every budget, and where the oracle is big."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LINES = {
    "random": ("random", "#9ca3af"),
    "best_fixed": ("best fixed", "#6b7280"),
    "best_of_n": ("best of 100 random, each sequence", "#d97706"),
    "best_of_n_together": ("best of 100 random, all together", "#fbbf24"),
    "greedy": ("greedy oracle", "#34d399"),
    "exhaustive": ("exhaustive oracle", "#047857"),
}


def draw(result: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Write one row of panels per corpus as PNG and return its path."""
    figure = Figure(figsize=(12.0, 3.8 * len(result)), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(result), 3, squeeze=False, width_ratios=(2, 1, 1))
    for row, (name, found) in zip(axes, result.items(), strict=True):
        _losses(row[0], name, found)
        _shares(row[1], "sequences: share of big", found["oracle_share_KL"])
        _shares(row[2], "single tokens: share of big", found["token_oracle_share_KL"])
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _losses(axes: Any, name: str, found: Mapping[str, Any]) -> None:
    for key, (label, color) in LINES.items():
        lines = [line for line in found["sequences"] if key in line]
        x = [line["budget"] for line in lines]
        axes.plot(x, [line[key]["loss"]["value"] for line in lines], color=color, label=label, linewidth=1.8)
    routers = found["routers"]
    x = [line["budget"] for line in routers]
    y = [line["loss"]["value"] for line in routers]
    axes.scatter(x, y, color="#2563eb", s=22, zorder=5, label="trained router, each seed")
    big = found["sequences"][-1]["all_big"]["loss"]["value"]
    axes.axhline(big, color="#111827", linewidth=0.9, linestyle=":", label="all big")
    axes.set_title(f"{name}: held-out sequences")
    axes.set_xlabel("big layers per token")
    axes.set_ylabel("loss, nats per token")
    axes.legend(fontsize=7, frameon=False)


def _shares(axes: Any, title: str, share_KL: list[list[float]]) -> None:
    axes.imshow(np.array(share_KL), vmin=0, vmax=1, cmap="Greens", aspect="auto", origin="lower")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("layer")
    axes.set_ylabel("budget")
