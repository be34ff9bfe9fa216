"""This module finds room for labels beside their points: greedily, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

Anchor = Literal["start", "middle", "end"]


@final
@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in drawing units, y down."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """A label that wants a place near the point (x, y)."""

    x: float
    y: float
    width: float
    height: float
    gap: float
    """Distance between the point and the text."""
    is_important: bool
    rise: float = 0.0
    """How far the point's interval reaches above it."""
    drop: float = 0.0
    """How far it reaches below."""


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a text goes: its anchor point, on the vertical middle of the text."""

    x: float
    y: float
    anchor: Anchor


def place(wishes: Sequence[Wish], obstacles: Sequence[Box], bounds: Box) -> list[Place | None]:
    """Return a place for each label, in order; None where an unimportant one finds no free room."""
    taken: list[Box] = list(obstacles)
    places: list[Place | None] = []
    for wish in wishes:
        best: tuple[float, Place, Box] | None = None
        for rank, (candidate, box) in enumerate(_around(wish, bounds)):
            outside = box.left < bounds.left or box.right > bounds.right
            outside = outside or box.top < bounds.top or box.bottom > bounds.bottom
            if outside and not wish.is_important:
                continue
            hidden = sum(box.overlap(other) for other in taken) + (1e6 if outside else 0.0)
            if best is None or hidden + 0.01 * rank < best[0]:
                best = hidden + 0.01 * rank, candidate, box
        if best is None or (best[0] >= 1.0 and not wish.is_important):
            places.append(None)
            continue
        places.append(best[1])
        taken.append(best[2])
    return places


def _around(wish: Wish, bounds: Box) -> list[tuple[Place, Box]]:
    """Return the places in order of preference: right, left, above, below, then the corners.

    Those above and below stand beyond the interval, and slide along it to stay within the bounds.
    """
    x, y, gap, half = wish.x, wish.y, wish.gap, wish.height / 2
    above, below = max(gap, wish.rise + 2) + half, max(gap, wish.drop + 2) + half
    spots: list[tuple[float, float, Anchor]] = [
        (x + gap, y, "start"),
        (x - gap, y, "end"),
        (x, y - above, "middle"),
        (x, y + below, "middle"),
        (x + gap, y - gap, "start"),
        (x + gap, y + gap, "start"),
        (x - gap, y - gap, "end"),
        (x - gap, y + gap, "end"),
        (x + gap, y - 2.4 * gap, "start"),
        (x + gap, y + 2.4 * gap, "start"),
        (x - gap, y - 2.4 * gap, "end"),
        (x - gap, y + 2.4 * gap, "end"),
        (x, y - above - 1.5 * gap, "middle"),
        (x, y + below + 1.5 * gap, "middle"),
    ]
    if wish.is_important:
        far = (-3.6, 3.6, -5.0, 5.0)
        spots += [(x + 0.6 * gap, y + step * gap, "start") for step in far]
        spots += [(x - 0.6 * gap, y + step * gap, "end") for step in far]
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    found = []
    for left, middle, anchor in spots:
        if anchor == "middle":
            most = bounds.right - wish.width / 2
            left = max(min(left, most), bounds.left + wish.width / 2)
        start = left - shift[anchor] * wish.width
        box = Box(start, middle - half, start + wish.width, middle + half)
        found.append((Place(left, middle, anchor), box))
    return found
