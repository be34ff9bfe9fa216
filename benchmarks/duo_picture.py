"""This module draws what `bench_duo` measured: loss at every budget, and where the oracle is big or skips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The oracles' curves lie on each other: the exhaustive one is broad and pale, the greedy one dashed.
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {"color": "#9ca3af", "marker": "."}),
    "best_fixed": ("best fixed", {"color": "#374151", "marker": "s"}),
    "best_of_n_together": ("best of 100 random, all together", {"color": "#fbbf24", "marker": "^"}),
    "best_of_n": ("best of 100 random, each sequence", {"color": "#d97706", "marker": "v"}),
    "exhaustive": ("exhaustive oracle", {"color": "#6ee7b7", "linewidth": 6.0, "solid_capstyle": "round"}),
    "greedy": (
        "greedy oracle",
        {"color": "#7c3aed", "linestyle": (0, (4, 3)), "marker": "x", "markersize": 7},
    ),
    "router": ("trained router", {"color": "#2563eb", "marker": "o", "linewidth": 2.2}),
}


def draw(result: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Write one row of panels per corpus and setting as PNG and return its path."""
    figure = Figure(figsize=(12.5, 3.6 * len(result) + 0.8), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(result), 3, squeeze=False, width_ratios=(2, 1, 1))
    for row, (name, found) in zip(axes, result.items(), strict=True):
        _losses(row[0], name, found)
        _shares(row[1], "sequences: share of big", found["oracle_share_KL"])
        if found["allow_skip"]:
            _shares(row[2], "sequences: share of skip", found["oracle_skip_KL"])
        else:
            _shares(row[2], "single tokens: share of big", found["token_oracle_share_KL"])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _losses(axes: Any, name: str, found: Mapping[str, Any]) -> None:
    for key, (label, style) in LINES.items():
        lines = [line for line in found["sequences"] if key in line]
        x = [line[key].get("spent", line["budget"]) for line in lines]
        y = [line[key]["loss"]["value"] for line in lines]
        axes.plot(x, y, label=label, **{"linewidth": 1.6, "markersize": 5, **style})
    for line in found["sequences"]:
        seeds = line["router"]["loss_by_seed"] if "router" in line else []
        axes.plot([line["budget"]] * len(seeds), seeds, ".", color="#2563eb", alpha=0.35, markersize=5)
    big = found["sequences"][-1]["all_big"]["loss"]["value"]
    axes.axhline(big, color="#111827", linewidth=0.9, linestyle=":", label="all big")
    axes.set_title(f"{name}: held-out sequences")
    axes.set_xlabel("big layers per token")
    axes.set_ylabel("loss, nats per token")


def _shares(axes: Any, title: str, share_KL: list[list[float]]) -> None:
    axes.imshow(np.array(share_KL), vmin=0, vmax=1, cmap="Greens", aspect="auto", origin="lower")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("layer")
    axes.set_ylabel("budget")
