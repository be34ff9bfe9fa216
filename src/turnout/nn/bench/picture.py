"""This module draws the comparison of gates."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from turnout.nn.bench.contenders import CONTROLS
from turnout.nn.bench.summary import BASELINE, FIXED, GROUPS, Group, Row, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 160
INK, SOFT = "#111827", "#4b5563"
COLORS: dict[Group, str] = {"equal work": "#1d4ed8", "other work": "#b45309", "sees later bytes": "#9ca3af"}


def draw(rows: Sequence[Row], title: str) -> bytes:
    """Return one PNG: loss against dense, FLOPs, unevenness, and training speed, gate by gate.

    Groups that are ranked apart stand apart, below those of equal work. Dots are gates; rings are what stands
    beside them, dense at 0.
    """
    file = io.BytesIO()
    figure_of(rows, title).savefig(file, format="png", metadata={"Software": "turnout"})
    return file.getvalue()


def figure_of(rows: Sequence[Row], title: str) -> Figure:
    """Return the figure that `draw` writes."""
    order = list(GROUPS)
    known = [row for row in rows if row.loss is not None]
    shown = sorted(known, key=lambda row: order.index(row.group))[::-1]
    figure = Figure(figsize=(11.5, 1.4 + 0.34 * len(shown)), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4, sharey=True, width_ratios=(1.5, 0.6, 1.0, 1.0))
    _panel(axes[0], shown, _difference, "Loss minus dense, nats a byte (left: better)", zero=0.0)
    _panel(axes[1], shown, lambda row: row.flops, "FLOPs over dense", zero=1.0)
    _panel(axes[2], shown, lambda row: row.max_vio, "MaxVio (0: even)", zero=0.0)
    _panel(axes[3], shown, lambda row: row.speed, "Training speed over dense", zero=1.0)
    for panel in axes[1:]:
        # An interval may reach below what can be.
        panel.set_xlim(left=0.0)
        panel.tick_params(left=False)
    names = [row.gate if row.group == order[0] else f"{row.gate} ({row.group})" for row in shown]
    axes[0].set_yticks(range(len(shown)), names)
    for place in range(1, len(shown)):
        if shown[place].group != shown[place - 1].group:
            for panel in axes:
                panel.axhline(place - 0.5, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    figure.suptitle(title, color=INK, fontsize=10, x=0.01, ha="left")
    return figure


def _difference(row: Row) -> Spread | None:
    return Spread(value=0.0, low=None, high=None) if row.gate == BASELINE else row.against_dense


def _panel(
    axes: Axes, rows: Sequence[Row], value: Callable[[Row], Spread | None], title: str, *, zero: float
) -> None:
    """Draw one number of each row with its interval."""
    axes.axvline(zero, color=SOFT, linewidth=0.8)
    for place, row in enumerate(rows):
        found = value(row)
        if found is None:
            continue
        color = COLORS[row.group]
        if found.low is not None and found.high is not None:
            axes.plot(
                [found.low, found.high], [place, place], color=color, linewidth=1.6, solid_capstyle="butt"
            )
        inside = "white" if row.gate in (*CONTROLS, FIXED) else color
        axes.plot(
            [found.value], [place], "o", color=color, markerfacecolor=inside, markersize=4.5, clip_on=False
        )
    axes.set_title(title, color=INK, fontsize=9, loc="left")
    axes.tick_params(labelsize=8, colors=SOFT)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
