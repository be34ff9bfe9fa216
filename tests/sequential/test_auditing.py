"""An audit finds the first choice that comes out otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.sequential.scripted import World, query
from turnout.core import InputError
from turnout.sequential import Bounds, Call, FixedOrder, RandomSequencer, Trace, run
from turnout.sequential.auditing import audit
from turnout.sequential.record import from_lines, to_lines
from turnout.sequential.trace import Chosen, Started


def trace_of(seed: int = 5) -> Trace:
    """Return a task in which choices were drawn and a call failed."""
    world = World(failing=["large"])
    return run(world, RandomSequencer(stop=0.3), query(), bounds=Bounds(usd=0.5), seed=seed).trace


@pytest.mark.parametrize("seed", range(8))
def test_the_same_sequencer_agrees_with_itself(seed: int) -> None:
    trace = trace_of(seed)
    assert audit(trace, RandomSequencer(stop=0.3)) is None
    (again,) = from_lines(to_lines([trace], keep_text=True))
    assert audit(again, RandomSequencer(stop=0.3)) is None


def test_another_sequencer_is_told_apart_by_its_action_or_its_propensity() -> None:
    found = audit(trace_of(), FixedOrder(order=("small",), answers=2))
    assert found is not None
    assert found.field in ("action", "propensity")
    assert str(found).startswith(f"step {found.step}")
    finds = [audit(trace_of(seed), RandomSequencer(stop=0.31)) for seed in range(8)]
    assert any(f is not None and f.field == "propensity" for f in finds)


def changed(trace: Trace, number: int, **changes: Any) -> Trace:
    """Return a trace with another choice at event `number`."""
    again = Trace(trace.started)
    for position, event in enumerate(trace.events[1:], start=1):
        if position == number:
            assert isinstance(event, Chosen)
            event = Chosen(choice=replace(event.choice, **changes), admissible=event.admissible)
        again.append(event)
    return again


def test_a_record_that_was_touched_up_is_found_at_its_step() -> None:
    trace = trace_of()
    numbers = [n for n, event in enumerate(trace.events) if isinstance(event, Chosen)]
    for step, number in enumerate(numbers):
        found = audit(changed(trace, number, propensity=0.123), RandomSequencer(stop=0.3))
        assert found is not None
        assert (found.step, found.field, found.recorded) == (step, "propensity", 0.123)
    found = audit(changed(trace, numbers[0], action=Call(candidate="huge")), RandomSequencer(stop=0.3))
    assert found is not None
    assert (found.step, found.field) == (0, "action")


def test_a_record_without_texts_is_audited_with_the_original_query() -> None:
    (bare,) = from_lines(to_lines([trace_of()]))
    assert audit(bare, RandomSequencer(stop=0.3), query=query(), is_withheld=True) is None
    with pytest.raises(InputError, match="audit: query"):
        audit(bare, RandomSequencer(stop=0.3), query=query("another text"))


def test_who_was_admissible_is_part_of_the_record() -> None:
    trace = run(World(), FixedOrder(order=("large", "small")), query(), bounds=Bounds(usd=0.05)).trace
    (again,) = from_lines(to_lines([trace], keep_text=True))
    assert audit(again, FixedOrder(order=("large", "small"))) is None
    assert isinstance(again.events[0], Started)
    found = audit(again, FixedOrder(order=("small", "large"), aggregate="first"))
    assert found is not None
    assert found.step == 1
