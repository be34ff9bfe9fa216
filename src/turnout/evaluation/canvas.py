"""This module holds what both pictures share: colours, marker sizes and the layout of the labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from turnout.evaluation.labels import Box, Place, Wish, place

if TYPE_CHECKING:
    from turnout.evaluation.scene import Mark, Role, Scene

COLORS: dict[Role, str] = {
    "run-0": "#2563eb",
    "run-1": "#0d9488",
    "run-2": "#c026d3",
    "run-3": "#65a30d",
    "best": "#111827",
    "group": "#7c3aed",
    "random": "#6b7280",
    "oracle": "#d97706",
    "single": "#b6bcc6",
}
"""On a light ground."""
DARK_COLORS: dict[Role, str] = {
    "run-0": "#6ea8fe",
    "run-1": "#2dd4bf",
    "run-2": "#e879f9",
    "run-3": "#a3e635",
    "best": "#f3f4f6",
    "group": "#a78bfa",
    "random": "#9ca3af",
    "oracle": "#fbbf24",
    "single": "#5b6472",
}
"""On a dark ground."""
MARKER_AREA: dict[Role, float] = {
    "run-0": 95,
    "run-1": 80,
    "run-2": 80,
    "run-3": 80,
    "best": 62,
    "group": 62,
    "random": 70,
    "oracle": 190,
    "single": 26,
}
"""In square points, as matplotlib counts."""

CHARACTER = 0.58
"""Mean width of a character as a share of the font size."""
STEPS = 60
"""A line keeps labels away at this many points along it."""


def layout(
    scene: Scene, width: float, height: float, *, size: float, small: float
) -> list[tuple[Mark, Place]]:
    """Return the labels that find room, with their places in drawing units from the upper left.

    `size` and `small` are the font sizes of important and other labels in the same units. A label that
    takes more than half the width keeps what stands before its colon.
    """
    marks = [_shortened(mark, width, size) for mark in scene.marks]
    where = [_at(scene, mark.x, mark.y, width, height) for mark in marks]
    radius = [MARKER_AREA[mark.role] ** 0.5 / 2 for mark in marks]
    obstacles = [Box(x - r, y - r, x + r, y + r) for (x, y), r in zip(where, radius, strict=True)]
    obstacles += _line_boxes(scene, width, height)
    ends = [[_at(scene, mark.x, end, width, height)[1] for end in (mark.high, mark.low)] for mark in marks]
    obstacles += [Box(x - 3, top, x + 3, bottom) for (x, _), (top, bottom) in zip(where, ends, strict=True)]
    wishes = [
        Wish(
            x,
            y,
            width=CHARACTER * len(mark.label) * (size if mark.is_important else small) * _weight(mark),
            height=1.15 * (size if mark.is_important else small),
            gap=r + 3.5,
            is_important=mark.is_important,
            rise=y - top,
            drop=bottom - y,
        )
        for mark, (x, y), r, (top, bottom) in zip(marks, where, radius, ends, strict=True)
    ]
    places = place(wishes, obstacles, Box(0.0, 0.0, width, height))
    return [(mark, spot) for mark, spot in zip(marks, places, strict=True) if spot is not None]


def _shortened(mark: Mark, width: float, size: float) -> Mark:
    is_wide = CHARACTER * len(mark.label) * size > width / 2
    return replace(mark, label=mark.label.partition(":")[0]) if is_wide and mark.is_important else mark


def _weight(mark: Mark) -> float:
    return 1.1 if mark.role.startswith("run") else 1.0


def _at(scene: Scene, x: float, y: float, width: float, height: float) -> tuple[float, float]:
    return scene.x.share(x) * width, (1.0 - scene.y.share(y)) * height


def _line_boxes(scene: Scene, width: float, height: float) -> list[Box]:
    boxes = []
    for line in (*scene.lines, *([] if scene.mixes is None else [scene.mixes])):
        corners = [_at(scene, x, y, width, height) for x, y in zip(line.xs, line.ys, strict=True)]
        for (x0, y0), (x1, y1) in pairwise(corners):
            count = max(2, round(STEPS * max(abs(x1 - x0) / width, abs(y1 - y0) / height)))
            for step in range(count + 1):
                x, y = x0 + (x1 - x0) * step / count, y0 + (y1 - y0) * step / count
                boxes.append(Box(x - 2, y - 2, x + 2, y + 2))
    return boxes
