"""The loop holds the bounds, whatever a sequencer wants."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.sequential.scripted import AsyncWorld, Scripted, World, query
from turnout.core import InputError
from turnout.sequential import (
    Abstain,
    Bounds,
    Call,
    CallSet,
    Choice,
    Environment,
    Escalate,
    Observed,
    Outcome,
    Sequencer,
    Stop,
    Think,
    Thought,
    Trace,
    run,
    run_async,
)
from turnout.sequential.actions import Action
from turnout.sequential.auditing import audit
from turnout.sequential.trace import Chosen, Refused

SMALL, LARGE = Call(candidate="small"), Call(candidate="large")
SAMPLES = [Call(candidate="small", sample=sample) for sample in range(15)]
ONE = Bounds(usd=1.0)
THOUGHT = Think(messages=({"role": "user", "content": "think"},))


def play(*lines: Action, world: World | None = None, bounds: Bounds | None = None) -> Outcome:
    """Run these lines in a small world."""
    return run(World() if world is None else world, Scripted(lines=lines), query(), bounds=bounds or Bounds())


def refusals(outcome: Outcome) -> list[str]:
    """Return why choices were refused."""
    return [event.why for event in outcome.trace.events if isinstance(event, Refused)]


def test_call_then_stop_gives_the_answer_and_its_charge() -> None:
    outcome = play(SMALL, LARGE, Stop())
    assert (outcome.answer, outcome.ended.source, outcome.ended.how) == ("large 0", LARGE, "stop")
    assert outcome.usd == pytest.approx(0.11)
    assert [type(event).__name__ for event in outcome.trace.events] == [
        "Started", "Chosen", "Observed", "Chosen", "Observed", "Chosen", "Ended",
    ]  # fmt: skip


@pytest.mark.parametrize(("how", "answer"), [("last", "small 1"), ("first", "large 0"), ("vote", "large 0")])
def test_stop_aggregates(how: str, answer: str) -> None:
    lines = (LARGE, SMALL, Call(candidate="small", sample=1), Stop(aggregate=how))  # type: ignore[arg-type]
    assert play(*lines).answer == answer


class Forger(Sequencer):
    """Writes down a call that it never made, and answers with it."""

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        trace.append(Observed(call=LARGE, answer="42", usd=0.0))
        return Choice(action=Stop())


def test_no_sequencer_writes_its_own_trace() -> None:
    with pytest.raises(InputError, match="a loop writes this trace"):
        run(World(), Forger(), query())
    with pytest.raises(InputError, match="a loop writes this trace"):
        asyncio.run(run_async(AsyncWorld(), Forger(), query()))
    honest = play(SMALL, Stop())
    with pytest.raises(InputError, match="a loop writes this trace"):
        audit(honest.trace, Forger())
    assert honest.trace.num_calls == 1


def test_an_answer_in_own_words_has_no_source() -> None:
    ended = play(SMALL, Stop(answer="42")).ended
    assert (ended.answer, ended.source) == ("42", None)


def test_stop_without_any_call_answers_nothing_and_says_so() -> None:
    ended = play(Stop()).ended
    assert (ended.how, ended.answer, ended.source) == ("stop", None, None)
    assert "no call had answered" in ended.why


def test_escalate_and_abstain_end_without_an_answer() -> None:
    escalated = play(SMALL, Escalate(to="a person", why="unsure"))
    assert (escalated.ended.how, escalated.answer) == ("escalate", None)
    assert escalated.ended.why == "a person: unsure"
    assert escalated.usd == pytest.approx(0.01)
    assert play(Abstain(why="too hard")).ended.how == "abstain"


def test_a_sequencer_that_never_stops_is_stopped_with_its_last_answer() -> None:
    world = World()
    outcome = play(*SAMPLES, world=world, bounds=Bounds(steps=5))
    assert (outcome.ended.how, outcome.answer) == ("steps", "small 4")
    assert len(world.asked) == outcome.trace.steps == 5
    assert outcome.usd == pytest.approx(0.05)


def test_a_call_outside_the_pool_is_refused_names_the_pool_and_costs_nothing() -> None:
    world = World()
    outcome = play(Call(candidate="huge"), SMALL, Stop(), world=world)
    assert world.asked == [SMALL]
    assert outcome.usd == pytest.approx(0.01)
    assert "'small', 'large'" in refusals(outcome)[0]
    assert "'huge'" in refusals(outcome)[0]


def test_refused_steps_count_so_that_refusals_end() -> None:
    outcome = play(Call(candidate="huge"), bounds=Bounds(steps=3))
    assert (outcome.ended.how, outcome.answer, outcome.usd) == ("steps", None, 0.0)


def test_a_model_that_dies_in_round_two_is_charged_once_and_not_called_again() -> None:
    world = World(failing=["large"])
    outcome = play(SMALL, LARGE, LARGE, Stop(), world=world)
    assert world.asked == [SMALL, LARGE]
    assert outcome.usd == pytest.approx(0.11)
    assert outcome.answer == "small 0"
    assert outcome.trace.dead == {"large"}
    assert "failed in this task" in refusals(outcome)[0]


def test_when_everybody_is_dead_the_task_ends() -> None:
    outcome = play(SMALL, LARGE, world=World(failing=["small", "large"]))
    assert (outcome.ended.how, outcome.answer) == ("nobody", None)
    assert outcome.usd == pytest.approx(0.11)


def test_a_call_that_may_cost_more_than_is_left_is_refused() -> None:
    world = World()
    outcome = play(SMALL, LARGE, Stop(), world=world, bounds=Bounds(usd=0.1))
    assert world.asked == [SMALL]
    assert outcome.answer == "small 0"
    assert "0.09 usd" in refusals(outcome)[0]


def test_a_budget_that_is_spent_to_the_last_cent_is_kept() -> None:
    assert play(LARGE, Stop(), bounds=Bounds(usd=0.1)).answer == "large 0"


def test_a_budget_that_two_calls_spend_exactly_is_enough_for_both() -> None:
    # In floats 0.1 + 0.2 is more than 0.3, and 0.3 - 0.1 less than 0.2.
    world = World(usd={"small": 0.1, "large": 0.2})
    assert play(SMALL, LARGE, Stop(), world=world, bounds=Bounds(usd=0.3)).answer == "large 0"
    assert world.asked == [SMALL, LARGE]
    both = CallSet(calls=(SMALL, LARGE))
    assert not refusals(play(both, Stop(), world=world, bounds=Bounds(usd=0.3)))
    dearer = World(usd={"small": 0.1, "large": 0.2 + 1e-8})
    assert refusals(play(SMALL, LARGE, Stop(), world=dearer, bounds=Bounds(usd=0.3)))


def test_rounding_is_forgiven_once_and_not_per_call() -> None:
    world = World(usd={"small": 1e-10, "large": 1.0})
    outcome = play(LARGE, *SAMPLES, world=world, bounds=ONE)
    assert outcome.usd <= 1.0 + 1e-9
    assert len(refusals(outcome)) >= 5


class Silent(World):
    """Times out on whatever it is asked, and never learns what that cost."""

    def observe(self, call: Call) -> Observed:
        """Return an error with an unknown charge."""
        return Observed(call=call, error="timed out", reserved_usd=-7.0)

    def think(self, request: Think, trace: Trace) -> Thought:
        """Return an error with an unknown charge."""
        return Thought(text="", error="timed out")


def test_a_charge_that_nobody_knows_uses_up_the_budget_as_if_it_had_been_the_most() -> None:
    names = "abcde"
    world = Silent(usd=dict.fromkeys(names, 0.1))
    lines = [Call(candidate=name) for name in names]
    outcome = play(*lines, Stop(), world=world, bounds=Bounds(usd=0.1))
    assert world.asked == lines[:1]
    assert (outcome.usd, outcome.trace.reserved_usd, outcome.trace.remaining_usd) == (0.0, 0.1, 0.0)
    assert outcome.trace.num_unknown_charges == 1
    both = CallSet(calls=tuple(lines[:2]))
    trace = play(both, lines[2], lines[3], Stop(), world=world, bounds=Bounds(usd=0.3)).trace
    assert (trace.num_calls, trace.reserved_usd) == (3, pytest.approx(0.3))  # type: ignore[comparison-overlap]
    free = play(*lines, Stop(), world=world).trace
    assert (free.num_calls, free.reserved_usd, free.remaining_usd) == (5, 0.0, math.inf)


def test_a_thought_whose_charge_nobody_knows_uses_up_the_budget_too() -> None:
    trace = play(THOUGHT, THOUGHT, THOUGHT, Stop(), world=Silent(), bounds=Bounds(usd=0.25)).trace
    assert (trace.num_unknown_charges, trace.reserved_usd) == (2, pytest.approx(0.2))  # type: ignore[comparison-overlap]


def test_a_charge_that_is_known_is_not_reserved_as_well() -> None:
    class Careful(World):
        def observe(self, call: Call) -> Observed:
            return replace(super().observe(call), reserved_usd=5.0)

    trace = play(SMALL, LARGE, Stop(), world=Careful(), bounds=ONE).trace
    assert (trace.num_calls, trace.reserved_usd, trace.observed[0].reserved_usd) == (2, 0.0, 0.0)


def test_a_budget_below_the_cheapest_call_ends_the_task_before_it_starts() -> None:
    world = World()
    outcome = play(SMALL, world=world, bounds=Bounds(usd=0.001))
    assert (outcome.ended.how, outcome.usd, world.asked) == ("budget", 0.0, [])
    assert "0.001 usd buy no call" in outcome.ended.why


def test_under_a_budget_an_unknown_price_is_no_price() -> None:
    unknown = World(usd={"small": 0.01, "large": math.nan})
    outcome = play(LARGE, SMALL, Stop(), world=unknown, bounds=Bounds(usd=1.0))
    assert unknown.asked == [SMALL]
    assert "not known" in refusals(outcome)[0]
    free = World(usd={"small": 0.01, "large": math.nan})
    trace = play(LARGE, Stop(), world=free).trace
    assert free.asked == [LARGE]
    assert (trace.usd, trace.num_unknown_charges) == (0.0, 1)


def test_a_set_is_paid_for_whole_or_not_at_all() -> None:
    both = CallSet(calls=(SMALL, LARGE))
    outcome = play(both, Stop(aggregate="first"))
    assert (outcome.answer, outcome.trace.num_calls) == ("small 0", 2)
    assert outcome.usd == pytest.approx(0.11)
    world = World()
    assert refusals(play(both, Stop(), world=world, bounds=Bounds(usd=0.1)))
    assert refusals(play(both, Stop(), world=world, bounds=Bounds(calls=1)))
    assert world.asked == []


def test_the_number_of_calls_is_bounded_and_nobody_is_admissible_after() -> None:
    world = World()
    outcome = play(*SAMPLES[:3], Stop(), world=world, bounds=Bounds(calls=2))
    assert len(world.asked) == 2
    assert "at most 2" in refusals(outcome)[0]
    chosen = [event for event in outcome.trace.events if isinstance(event, Chosen)]
    assert [event.admissible for event in chosen] == [("small", "large")] * 2 + [()] * 2


@pytest.mark.parametrize("again", [SMALL, CallSet(calls=(SMALL, SAMPLES[1]))])
def test_the_same_call_is_not_made_twice_so_that_nobody_votes_twice(again: Action) -> None:
    world = World()
    outcome = play(LARGE, SAMPLES[1], SMALL, again, Stop(aggregate="vote"), world=world)
    assert world.asked == [LARGE, SAMPLES[1], SMALL]
    assert outcome.usd == pytest.approx(0.12)
    assert "was asked this, sample 0, before" in refusals(outcome)[0]
    parts = [Call(candidate="small", text=text) for text in ("one half", "the other half")]
    assert not refusals(play(SMALL, *parts, Stop(), world=world))


@pytest.mark.parametrize("nonsense", [None, Stop(), Choice(action=None)])  # type: ignore[arg-type]
def test_a_sequencer_that_chooses_nothing_is_told_so(nonsense: Choice) -> None:
    class Lost(Scripted):
        def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
            return nonsense

    with pytest.raises(InputError, match=r"Lost\.next; allowed: a Choice of an action; got: "):
        run(World(), Lost(lines=()), query())


def test_who_was_admissible_is_recorded_as_the_loop_found_it() -> None:
    class Forger(Scripted):
        def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
            trace.admissible = ("huge",)
            return super().next(trace, rng)

    trace = run(World(), Forger(lines=[SMALL, Stop()]), query()).trace
    chosen = [event.admissible for event in trace.events if isinstance(event, Chosen)]
    assert chosen == [("small", "large")] * 2


def test_no_call_starts_after_the_deadline() -> None:
    outcome = play(*SAMPLES, bounds=Bounds(deadline_s=2.5))
    assert outcome.ended.how == "deadline"
    assert outcome.trace.num_calls == 3
    assert outcome.answer == "small 2"


def test_calls_of_one_set_run_side_by_side() -> None:
    world = World()
    outcome = play(CallSet(calls=(SMALL, LARGE)), THOUGHT, Stop(), world=world)
    assert world.elapsed_s(outcome.trace) == pytest.approx(1.5)


def test_thoughts_are_charged_bounded_and_counted() -> None:
    outcome = play(THOUGHT, SMALL, Stop())
    assert outcome.usd == pytest.approx(0.06)
    assert outcome.trace.num_calls == 1
    poor = play(THOUGHT, SMALL, Stop(), bounds=Bounds(usd=0.09))
    assert poor.usd == pytest.approx(0.01)
    assert len(refusals(poor)) == 1


def test_an_environment_without_a_model_of_its_own_says_so() -> None:
    class Thoughtless(World):
        def think(self, request: Think, trace: Trace) -> Thought:
            return Environment.think(self, request, trace)

    with pytest.raises(InputError, match="does not think"):
        play(THOUGHT, world=Thoughtless())


def test_an_answer_that_nobody_asked_for_is_an_error() -> None:
    class Confused(World):
        def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
            return (self.observe(LARGE),)

    with pytest.raises(InputError, match="something else than it was asked"):
        play(SMALL, world=Confused())


def test_a_thought_that_answers_a_call_is_an_error() -> None:
    class Dreamy(World):
        def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
            return Thought(text="hm")  # type: ignore[return-value]

    with pytest.raises(InputError, match="something else than it was asked"):
        play(SMALL, world=Dreamy())


@pytest.mark.parametrize("failing", [(), ("large",)])
def test_the_asynchronous_twin_writes_the_same_trace(failing: tuple[str, ...]) -> None:
    lines = (SMALL, THOUGHT, LARGE, LARGE, CallSet(calls=(SMALL,)), Stop())
    bounds = Bounds(usd=1.0, steps=9)
    now = run(World(failing=failing), Scripted(lines=lines), query(), bounds=bounds, seed=3)
    later = asyncio.run(
        run_async(AsyncWorld(failing=failing), Scripted(lines=lines), query(), bounds=bounds, seed=3)
    )
    assert repr(now.trace.events) == repr(later.trace.events)
    assert now.usd == later.usd


@pytest.mark.parametrize("name", ["steps", "usd", "calls", "deadline_s"])
def test_bounds_say_what_is_wrong(name: str) -> None:
    with pytest.raises(InputError, match=f"Bounds.{name}"):
        Bounds(**{name: -1})
