"""This module draws what rewiring did to the loss on the continuation, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write one panel per family: change of loss with its interval, for both kinds of text."""
    families = [name for name, value in result.items() if isinstance(value, Mapping) and "shifted" in value]
    columns = min(len(families), 2)
    rows = -(-len(families) // columns)
    size = (4.2 * columns + 2.0, 4.0 * rows + 0.5)
    figure = Figure(figsize=size, dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in all_axes[len(families) :]:
        axes.set_axis_off()
    for axes, family in zip(all_axes, families, strict=False):
        arms = [arm for arm, line in result[family]["shifted"].items() if "change" in line]
        for offset, color, kind in ((-0.17, "#4477aa", "unshifted"), (0.17, "#cc6677", "shifted")):
            for row, arm in enumerate(arms):
                line = result[family][kind][arm]
                axes.plot(line["change_interval"], [row + offset] * 2, color=color, linewidth=2)
                axes.plot(line["change"], row + offset, "o", color=color, label=kind if not row else None)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(arms)), arms, fontsize=8)
        axes.set_title(family, fontsize=10)
        axes.tick_params(axis="x", labelsize=8)
    all_axes[0].invert_yaxis()
    figure.supxlabel("change of loss on the continuation, nats a token (left is better)", fontsize=9)
    marks = all_axes[0].get_legend_handles_labels()
    figure.legend(*marks, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path
