"""This module draws a report as inline SVG: classes for colours, so that the page's style decides them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from turnout.evaluation.canvas import MARKER_AREA, layout
from turnout.evaluation.forest import bars
from turnout.evaluation.scene import make_scene, quality_axis

if TYPE_CHECKING:
    from collections.abc import Callable

    from turnout.evaluation.forest import Bar
    from turnout.evaluation.report import Report
    from turnout.evaluation.scene import Line, Mark, Scene

    _At = Callable[[float, float], tuple[float, float]]

LEFT, RIGHT, TOP, BOTTOM = 40.0, 8.0, 10.0, 42.0
ZOOM = 1.2
"""Marks are drawn larger than in points: the page is seen at arm's length."""
ROW = 26.0
"""Height of a line of the picture without costs."""


def svg(report: Report, *, width: float, height: float, name: str) -> str:
    """Return the picture as one `<svg>` element with the CSS class `name`."""
    scene = make_scene(report)
    if scene is None:
        shown = bars(report)
        height = ROW * len(shown) + BOTTOM + TOP
        body = _forest(shown, width, height)
    else:
        body = _plane(scene, width, height)
    title = "Quality against cost" if scene is not None else "Quality"
    return (
        f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{title}">'
        f"{''.join(body)}</svg>"
    )


def _plane(scene: Scene, width: float, height: float) -> list[str]:
    inner_width, inner_height = width - LEFT - RIGHT, height - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + scene.x.share(x) * inner_width, TOP + (1 - scene.y.share(y)) * inner_height

    parts = []
    for tick, text in scene.y.ticks:
        y = at(scene.x.low, tick)[1]
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{width - RIGHT:g}"/>')
        parts.append(_text(LEFT - 7, y, text, "tick", "end"))
    bottom = height - BOTTOM
    parts.append(f'<path class="axis" d="M{LEFT:g} {bottom:g}H{width - RIGHT:g}"/>')
    for tick, text in scene.x.ticks:
        x = at(tick, scene.y.low)[0]
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom:g}v4"/>')
        parts.append(_text(x, bottom + 14, text, "tick", "middle"))
    scale = " (log scale)" if scene.x.is_log else ""
    parts.append(_text(LEFT + inner_width / 2, height - 8, f"USD per 1,000 queries{scale}", "tick", "middle"))
    if scene.mixes is not None:
        parts.append(f'<path class="mixes" d="{_path(scene.mixes, scene.mixes.ys, at)}"/>')
    for line in reversed(scene.lines):
        parts += _curve(line, at)
    parts += [_mark(mark, at) for mark in reversed(scene.marks)]
    for mark, spot in layout(scene, inner_width, inner_height, size=12.5, small=9.5):
        kind = f"label {mark.role}" if mark.is_important else "label small"
        parts.append(_text(LEFT + spot.x, TOP + spot.y, mark.label, kind, spot.anchor))
    return parts


def _curve(line: Line, at: _At) -> list[str]:
    weight = "line main" if line.is_main else "line"
    drawn = f'<path class="{weight} {line.role}" d="{_path(line, line.ys, at)}"/>'
    if not line.is_main:
        return [drawn]
    edge = [at(x, y) for x, y in zip(reversed(line.xs), reversed(line.lows), strict=True)]
    down = " ".join(f"L{x:.1f} {y:.1f}" for x, y in edge)
    return [f'<path class="band {line.role}" d="{_path(line, line.highs, at)} {down}Z"/>', drawn]


def _path(line: Line, ys: tuple[float, ...], at: _At) -> str:
    corners = [at(x, y) for x, y in zip(line.xs, ys, strict=True)]
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in corners)


def _mark(mark: Mark, at: _At) -> str:
    x, y = at(mark.x, mark.y)
    radius = ZOOM * MARKER_AREA[mark.role] ** 0.5 / 2
    tip = f"<title>{escape(mark.label)}: {mark.y:.4f} at ${mark.x:.3g}</title>"
    if mark.role == "single":
        return f'<circle class="dot single" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{tip}</circle>'
    top, bottom = at(mark.x, mark.high)[1], at(mark.x, mark.low)[1]
    whisker = f'<path class="whisker {mark.role}" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>'
    shape = _SHAPES.get(mark.role)
    if shape is None:
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
        return f'{whisker}<circle class="dot {mark.role}" {place}>{tip}</circle>'
    corners = " ".join(f"{x + dx * radius:.1f},{y + dy * radius:.1f}" for dx, dy in shape)
    return f'{whisker}<polygon class="dot {mark.role}" points="{corners}">{tip}</polygon>'


def _forest(shown: list[Bar], width: float, height: float) -> list[str]:
    left = min(0.45 * width, 12.0 + 7.0 * max(len(bar.label) for bar in shown))
    axis = quality_axis(min(bar.low for bar in shown), max(bar.high for bar in shown))
    span = width - left - 46.0

    def at(value: float) -> float:
        return left + axis.share(value) * span

    parts = []
    for tick, text in axis.ticks[:: 1 if width > 500 else 2]:
        parts.append(f'<path class="grid" d="M{at(tick):.1f} {TOP:g}V{height - BOTTOM:g}"/>')
        parts.append(_text(at(tick), height - BOTTOM + 14, text, "tick", "middle"))
    parts.append(_text(left + span / 2, height - 8, "mean quality", "tick", "middle"))
    for row, bar in enumerate(shown):
        y = TOP + ROW * (row + 0.5)
        kind = "label small" if bar.role == "single" else f"label {bar.role}"
        parts += [
            _text(left - 8, y, bar.label, kind, "end"),
            f'<path class="whisker {bar.role}" d="M{at(bar.low):.1f} {y:.1f}H{at(bar.high):.1f}"/>',
            f'<circle class="dot {bar.role}" cx="{at(bar.value):.1f}" cy="{y:.1f}" r="4.5"/>',
            _text(at(bar.high) + 6, y, f"{bar.value:.3f}", "tick", "start"),
        ]
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" dy=".34em" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


_STAR = (
    (0, -1), (0.2645, -0.364), (0.951, -0.309), (0.428, 0.139), (0.588, 0.809),
    (0, 0.45), (-0.588, 0.809), (-0.428, 0.139), (-0.951, -0.309), (-0.2645, -0.364),
)  # fmt: skip
_CROSS = (
    (-0.85, -0.35), (-0.35, -0.85), (0, -0.5), (0.35, -0.85), (0.85, -0.35), (0.5, 0),
    (0.85, 0.35), (0.35, 0.85), (0, 0.5), (-0.35, 0.85), (-0.85, 0.35), (-0.5, 0),
)  # fmt: skip
_SHAPES = {
    "oracle": _STAR,
    "random": _CROSS,
    "best": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "group": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
}
