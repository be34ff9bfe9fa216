"""This module draws a report with matplotlib: quality against cost, or quality alone without costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from turnout.evaluation.canvas import COLORS, MARKER_AREA, layout
from turnout.evaluation.forest import bars
from turnout.evaluation.scene import make_scene

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from turnout.evaluation.report import Report
    from turnout.evaluation.scene import Mark, Scene

WIDTH_IN, HEIGHT_IN, DPI = 9.6, 5.8, 200
POINTS_PER_IN = 72
_MARKERS = {"oracle": "*", "best": "D", "group": "s", "random": "X"}


def draw(report: Report, path: Path) -> Path:
    """Write the picture as PNG and return its path."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.115, 0.895, 0.765))
    scene = make_scene(report)
    if scene is None:
        _draw_quality(axes, report)
    else:
        _draw_scene(axes, scene)
    _title(figure, report, has_costs=scene is not None)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def _draw_scene(axes: Axes, scene: Scene) -> None:
    _frame(axes)
    if scene.x.is_log:
        axes.set_xscale("log")
    axes.set_xlim(scene.x.low, scene.x.high)
    axes.set_ylim(scene.y.low, scene.y.high)
    axes.set_xticks([tick for tick, _ in scene.x.ticks], [text for _, text in scene.x.ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks([tick for tick, _ in scene.y.ticks], [text for _, text in scene.y.ticks])
    axes.set_xlabel("cost, USD per 1,000 queries" + (" (log scale)" if scene.x.is_log else ""), labelpad=7)
    # The most important line is drawn last, on top of the others.
    for line in reversed(scene.lines):
        color = COLORS[line.role]
        if line.is_main:
            axes.fill_between(line.xs, line.lows, line.highs, color=color, alpha=0.14, linewidth=0, zorder=2)
        width = 2.4 if line.is_main else 1.6
        axes.plot(line.xs, line.ys, color=color, linewidth=width, solid_capstyle="round", zorder=4)
    if scene.mixes is not None:
        axes.plot(scene.mixes.xs, scene.mixes.ys, color="#9ca3af", linewidth=1.0, dashes=(4, 3), zorder=1)
    for mark in reversed(scene.marks):
        _draw_mark(axes, mark)
    _draw_labels(axes, scene)


def _draw_mark(axes: Axes, mark: Mark) -> None:
    color = COLORS[mark.role]
    if mark.role == "single":
        axes.scatter([mark.x], [mark.y], s=26, color=color, linewidth=0, zorder=3)
        return
    axes.plot([mark.x, mark.x], [mark.low, mark.high], color=color, linewidth=1.3, alpha=0.75, zorder=5)
    axes.scatter(
        [mark.x],
        [mark.y],
        s=MARKER_AREA[mark.role],
        marker=_MARKERS.get(mark.role, "o"),
        color=color,
        edgecolor="white",
        linewidth=1.2,
        zorder=6,
    )


def _draw_labels(axes: Axes, scene: Scene) -> None:
    width = WIDTH_IN * POINTS_PER_IN * axes.get_position().width
    height = HEIGHT_IN * POINTS_PER_IN * axes.get_position().height
    for mark, spot in layout(scene, width, height, size=9.5, small=7.2):
        axes.annotate(
            mark.label,
            (spot.x / width, 1.0 - spot.y / height),
            xycoords="axes fraction",
            fontsize=9.5 if mark.is_important else 7.2,
            fontweight="bold" if mark.role.startswith("run") else "normal",
            color=COLORS[mark.role] if mark.is_important else "#6b7280",
            ha={"start": "left", "middle": "center", "end": "right"}[spot.anchor],
            va="center_baseline",
            zorder=8,
            path_effects=[withStroke(linewidth=2.2, foreground="white", alpha=0.85)],
        )


def _draw_quality(axes: Axes, report: Report) -> None:
    """Draw one bar of interval per row and candidate, the best on top."""
    _frame(axes)
    shown = bars(report)
    for height, bar in enumerate(reversed(shown)):
        color = COLORS[bar.role]
        axes.plot([bar.low, bar.high], [height, height], color=color, linewidth=2.2, alpha=0.8, zorder=3)
        axes.scatter([bar.value], [height], s=42, color=color, edgecolor="white", linewidth=1.0, zorder=4)
        axes.annotate(
            f"{bar.value:.3f}",
            (bar.high, height),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=8,
            color="#6b7280",
            va="center",
        )
    axes.set_yticks(range(len(shown)), [bar.label for bar in reversed(shown)])
    for text, bar in zip(axes.get_yticklabels(), reversed(shown), strict=True):
        text.set_color(COLORS[bar.role] if bar.role != "single" else "#6b7280")
        text.set_fontweight("bold" if bar.role.startswith("run") else "normal")
    axes.set_ylim(-0.7, len(shown) - 0.3)
    left, right = min(bar.low for bar in shown), max(bar.high for bar in shown)
    axes.set_xlim(left - 0.04 * (right - left), right + 0.12 * (right - left))
    axes.set_xlabel("mean quality", labelpad=7)
    longest = max(len(bar.label) for bar in shown)
    margin = 0.03 + 0.0085 * longest
    axes.set_position((margin, 0.115, 0.97 - margin, 0.765))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color="#e5e7eb", linewidth=0.8)


def _frame(axes: Axes) -> None:
    axes.set_facecolor("white")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")
    axes.tick_params(length=0, colors="#4b5563", labelsize=9, pad=6)
    axes.tick_params(axis="x", which="both", length=3, color="#9ca3af")
    axes.grid(visible=True, axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color="#4b5563", fontsize=9.5)


def _title(figure: Any, report: Report, *, has_costs: bool) -> None:
    origin = report.origin
    text = "Quality against cost" if has_costs else "Quality"
    figure.text(0.075, 0.945, text, fontsize=14, fontweight="bold", color="#111827")
    axis = "mean quality; dashed: mixes of single models; " if has_costs else ""
    figure.text(
        0.075,
        0.905,
        f"{axis}{origin.num_scored:,} held-out queries, {origin.confidence:.0%} bootstrap intervals",
        fontsize=9.5,
        color="#6b7280",
    )
