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
    figure = Figure(figsize=(5.2 * len(families) + 2.6, 5.6), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for axes, family in zip(all_axes, families, strict=True):
        arms = [arm for arm, line in result[family]["shifted"].items() if "change" in line]
        for offset, color, kind in ((-0.17, "#4477aa", "unshifted"), (0.17, "#cc6677", "shifted")):
            for row, arm in enumerate(arms):
                line = result[family][kind][arm]
                axes.plot(line["change_interval"], [row + offset] * 2, color=color, linewidth=2)
                axes.plot(line["change"], row + offset, "o", color=color, label=kind if not row else None)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(arms)), arms, fontsize=8)
        axes.set_title(family)
        axes.set_xlabel("change of loss on the continuation, nats a token (left is better)", fontsize=8)
    all_axes[0].invert_yaxis()
    all_axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path
