"""An audit finds the first choice that comes out otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.sequential.scripted import Scripted, World, query
from turnout.core import InputError
from turnout.sequential import (
    Bounds,
    Call,
    CallSet,
    FixedOrder,
    Observed,
    RandomSequencer,
    Stop,
    Think,
    Trace,
    run,
)
from turnout.sequential.auditing import audit
from turnout.sequential.record import from_lines, to_lines
from turnout.sequential.trace import Chosen, Ended, Refused, Started


def edited(event: Any, **fields: Any) -> Any:
    """Return an event with other values, whatever kind it is."""
    return dataclasses.replace(event, **fields)


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
            event = Chosen(choice=edited(event.choice, **changes), admissible=event.admissible)
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


ORDER = FixedOrder(order=("small", "large"))


def events_of(trace: Trace, *events: object) -> Trace:
    """Return a trace of these events."""
    again = Trace(trace.started)
    for event in events:
        again.append(event)  # type: ignore[arg-type]
    return again


def test_what_followed_the_choices_is_part_of_the_audit() -> None:
    trace = run(World(), ORDER, query(), bounds=Bounds(usd=0.5)).trace
    first, seen, *middle, end = trace.events[1:]
    refused = Refused(action=Call(candidate="small"), why="the rest of the budget")
    late = Observed(call=Call(candidate="large"), answer="large 0", usd=0.1)
    wrong: dict[str, list[Any]] = {
        "end": [
            [first, seen, *middle, edited(end, answer="forged")],
            [first, seen, *middle, edited(end, source=Call(candidate="small"))],
            [first, seen, *middle],
            [first, seen],
            [first],
            [],
            [Ended(how="steps", answer=None)],
            [first, seen, Ended(how="steps", answer="small 0", source=Call(candidate="small"))],
        ],
        "usd": [[first, edited(seen, usd=99.0), *middle, end]],
        "event": [
            [first, late, *middle, end],
            [first, edited(refused, action=Call(candidate="large")), *middle, end],
            [first, first, seen, *middle, end],
        ],
        "admissible": [[edited(first, admissible=("small", "huge")), seen, *middle, end]],
    }
    for field, forged in wrong.items():
        for events in forged:
            found = audit(events_of(trace, *events), ORDER)
            assert found is not None
            assert found.field == field
    cheap = edited(refused, why="the rest of the budget; allowed: 0.5 usd; got: 'up to 9 usd'")
    found = audit(events_of(trace, first, cheap, *middle, end), ORDER)
    assert found is not None
    assert found.now == "no refusal"
    assert audit(events_of(trace, first, seen), ORDER, is_whole=False) is None
    free = run(World(), ORDER, query()).trace
    found = audit(events_of(free, free.events[1], refused, *free.events[3:]), ORDER)
    assert found is not None
    assert (found.field, found.now) == ("event", "no refusal")


@pytest.mark.parametrize(
    "bounds",
    [Bounds(steps=4), Bounds(calls=2), Bounds(deadline_s=1.5), Bounds(usd=0.1), Bounds(usd=0.001), Bounds()],
)
@pytest.mark.parametrize("failing", [(), ("small",), ("small", "large")])
def test_whatever_the_bounds_do_an_honest_record_agrees(bounds: Bounds, failing: tuple[str, ...]) -> None:
    small, large = Call(candidate="small"), Call(candidate="large")
    both = CallSet(calls=(Call(candidate="small", sample=1), large))
    thought = Think(messages=({"role": "user", "content": "think"},))
    stop = Stop(aggregate="vote")
    lines: list[Any] = [Call(candidate="huge"), small, small, thought, both, large, stop]
    trace = run(World(failing=failing), Scripted(lines=lines), query(), bounds=bounds).trace
    assert audit(trace, Scripted(lines=lines)) is None
    (bare,) = from_lines(to_lines([trace]))
    assert audit(bare, Scripted(lines=lines), query=query(), is_withheld=True) is None
    refusals = [n for n, event in enumerate(trace.events) if isinstance(event, Refused)]
    for number in refusals:
        events = [*trace.events[1:]]
        events[number - 1] = edited(events[number - 1], why="because")
        found = audit(events_of(trace, *events), Scripted(lines=lines))
        assert found is not None
        assert found.field == "event"
