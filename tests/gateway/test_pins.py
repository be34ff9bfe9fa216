"""Who made what is remembered, up to a bound."""

from __future__ import annotations

from tests.gateway.pool import LARGE, SMALL
from turnout.gateway.pins import Pins


def test_the_first_known_name_decides() -> None:
    pins = Pins()
    pins.remember(["a"], SMALL)
    pins.remember(["b"], LARGE)
    assert pins.maker(["x", "b", "a"]) is LARGE
    assert pins.maker(["x"]) is None


def test_what_was_used_longest_ago_is_forgotten() -> None:
    pins = Pins(capacity=3)
    pins.remember(["a", "b", "c"], SMALL)
    assert pins.maker(["a"]) is SMALL
    pins.remember(["d"], LARGE)
    assert len(pins) == 3
    assert [pins.maker([name]) for name in "abcd"] == [SMALL, None, SMALL, LARGE]
