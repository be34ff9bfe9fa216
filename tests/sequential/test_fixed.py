"""A fixed order is kept, and its fallbacks are used."""

from __future__ import annotations

import pytest

from tests.sequential.scripted import World, query
from turnout.core import InputError
from turnout.sequential import Bounds, FixedOrder, run


def called(world: World) -> list[tuple[str, int]]:
    """Return whom a world was asked for."""
    return [(call.candidate, call.sample) for call in world.asked]


def test_everybody_is_called_once_in_order_and_repeats_are_further_samples() -> None:
    world = World()
    outcome = run(world, FixedOrder(order=("large", "small", "small"), aggregate="first"), query())
    assert called(world) == [("large", 0), ("small", 0), ("small", 1)]
    assert (outcome.answer, outcome.ended.how) == ("large 0", "stop")


def test_with_one_answer_wanted_the_rest_are_fallbacks() -> None:
    world = World()
    run(world, FixedOrder(order=("large", "small"), answers=1), query())
    assert called(world) == [("large", 0)]
    broken = World(failing=["large"])
    outcome = run(broken, FixedOrder(order=("large", "small"), answers=1), query())
    assert called(broken) == [("large", 0), ("small", 0)]
    assert outcome.answer == "small 0"
    assert outcome.usd == pytest.approx(0.11)


def test_whoever_is_too_dear_is_passed_over() -> None:
    outcome = run(World(), FixedOrder(order=("large", "small")), query(), bounds=Bounds(usd=0.05))
    assert (outcome.answer, outcome.ended.how) == ("small 0", "stop")


@pytest.mark.parametrize("order", [(), "small"])
def test_an_order_is_a_list_of_names(order: object) -> None:
    with pytest.raises(InputError, match=r"FixedOrder\.order"):
        FixedOrder(order=order)  # type: ignore[arg-type]
