from __future__ import annotations

import numpy as np

from turnout.evaluation.labels import Box, Place, Wish, place

BOUNDS = Box(0, 0, 400, 300)


def wish(x: float, y: float, *, is_important: bool = False, width: float = 60) -> Wish:
    return Wish(x, y, width=width, height=10, gap=6, is_important=is_important)


def box_of(one: Wish, spot: Place) -> Box:
    start = spot.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[spot.anchor] * one.width
    return Box(start, spot.y - one.height / 2, start + one.width, spot.y + one.height / 2)


def test_a_lonely_label_stands_to_the_right() -> None:
    assert place([wish(100, 100)], [], BOUNDS) == [Place(106, 100, "start")]


def test_at_the_right_edge_it_stands_to_the_left() -> None:
    (spot,) = place([wish(390, 100)], [], BOUNDS)
    assert spot == Place(384, 100, "end")


def test_labels_do_not_cover_each_other_or_leave_the_picture() -> None:
    rng = np.random.default_rng(0)
    wishes = [wish(float(x), float(y)) for x, y in rng.uniform((0, 0), (400, 300), (60, 2))]
    places = place(wishes, [], BOUNDS)
    boxes = [box_of(one, spot) for one, spot in zip(wishes, places, strict=True) if spot is not None]
    assert 20 < len(boxes) < 60
    for k, box in enumerate(boxes):
        assert box.left >= 0
        assert box.right <= 400
        assert all(box.overlap(other) < 1 for other in boxes[:k])


def test_an_important_label_is_shown_even_without_room() -> None:
    full = [BOUNDS]
    assert place([wish(100, 100)], full, BOUNDS) == [None]
    assert place([wish(100, 100, is_important=True)], full, BOUNDS)[0] is not None


def test_a_label_over_an_interval_stands_beyond_it_and_slides_to_stay_inside() -> None:
    beside = [Box(0, 90, 377, 110), Box(383, 90, 400, 110)]
    interval = Box(377, 60, 383, 140)
    one = Wish(380, 100, width=60, height=10, gap=6, is_important=True, rise=40, drop=40)
    (spot,) = place([one], [*beside, interval], BOUNDS)
    assert spot is not None
    box = box_of(one, spot)
    assert box.bottom <= 60
    assert box.right == 400
    assert all(box.overlap(other) == 0 for other in [*beside, interval])
