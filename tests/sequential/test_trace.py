"""A trace only grows, and knows what was charged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.sequential.scripted import query
from turnout.core import InputError
from turnout.sequential import Bounds, Call, CallSet, Choice, Ended, Observed, Started, Stop, Trace
from turnout.sequential.aggregate import aggregate
from turnout.sequential.trace import Chosen, Thought


def new_trace(**bounds: float) -> Trace:
    """Return a trace that has just begun."""
    return Trace(Started(query=query(), candidates=("a", "b"), bounds=Bounds(**bounds), seed=0))  # type: ignore[arg-type]


def observed(candidate: str, answer: str | None = None, **values: object) -> Observed:
    """Return what came of a call."""
    return Observed(call=Call(candidate=candidate), answer=answer, **values)  # type: ignore[arg-type]


def test_nothing_follows_an_end_and_nothing_starts_twice() -> None:
    trace = new_trace()
    with pytest.raises(InputError, match="between the start and the end"):
        trace.append(trace.started)
    trace.append(Ended(how="stop"))
    with pytest.raises(InputError, match="between the start and the end"):
        trace.append(observed("a"))
    assert len(trace.events) == 2


def test_what_was_handed_out_does_not_change_and_cannot_change_the_trace() -> None:
    trace = new_trace()
    before = trace.events
    trace.append(Chosen(choice=Choice(action=Stop())))
    assert (len(before), len(trace.events)) == (1, 2)
    assert isinstance(trace.events, tuple)
    assert isinstance(trace.observed, tuple)


def test_charges_add_up_and_unknown_ones_are_counted() -> None:
    trace = new_trace(usd=0.5)
    for usd in (0.2, math.nan, 0.4):
        trace.append(observed("a", usd=usd))
    assert trace.usd == pytest.approx(0.6)
    assert trace.num_unknown_charges == 1
    assert trace.remaining_usd == 0.0
    assert trace.next_sample("a") == 3
    assert trace.next_sample("b") == 0
    trace.append(Observed(call=Call(candidate="b", sample=4)))
    assert trace.next_sample("b") == 5


def test_what_a_charge_may_have_been_is_reserved_and_not_reported() -> None:
    trace = new_trace(usd=0.5)
    trace.append(observed("a", usd=math.nan, reserved_usd=0.3))
    trace.append(observed("a", usd=0.1, reserved_usd=9.0))
    trace.append(Thought(text="hm", reserved_usd=0.05))
    assert trace.usd == pytest.approx(0.1)
    assert trace.reserved_usd == pytest.approx(0.35)
    assert trace.remaining_usd == pytest.approx(0.05)
    assert trace.can_pay(0.05)
    assert not trace.can_pay(0.051)
    assert not trace.can_pay(math.nan)
    assert new_trace().can_pay(math.nan)


@pytest.mark.parametrize(
    "name", ["usd", "reserved_usd", "steps", "num_unknown_charges", "remaining_usd", "started", "bounds"]
)
def test_what_was_spent_and_counted_cannot_be_assigned(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(new_trace(), name, 0)


@pytest.mark.parametrize("usd", [-1e-9, math.inf, -math.inf, None, "1"])
def test_a_charge_that_is_none_is_refused(usd: object) -> None:
    """An environment of one's own that hands back less than nothing would give budget back."""
    with pytest.raises(InputError, match=r"Observed\.usd \(NaN where it is not known\).*\[0, inf\)"):
        observed("a", usd=usd)
    with pytest.raises(InputError, match=r"Thought\.usd"):
        Thought(text="", usd=usd)  # type: ignore[arg-type]
    assert observed("a", usd=np.float64("nan")).usd != 0.0


def test_only_an_error_kills() -> None:
    trace = new_trace()
    trace.append(observed("a", answer=None))
    trace.append(observed("b", error="gone"))
    assert trace.dead == {"b"}


def test_votes_fold_case_and_space_and_the_earliest_of_equals_wins() -> None:
    items = [observed("a", "No"), observed("b", "Yes "), observed("a", "yes"), observed("b", error="x")]
    assert aggregate("vote", items) == ("Yes ", Call(candidate="b"))
    assert aggregate("vote", items[:2])[0] == "No"
    assert aggregate("vote", items[3:]) == (None, None)
    assert aggregate("vote", [observed("a"), observed("b")]) == (None, Call(candidate="b"))


def test_actions_refuse_nonsense() -> None:
    call = Call(candidate="a")
    for wrong in ({"calls": ()}, {"calls": (call, call)}):
        with pytest.raises(InputError, match="each once"):
            CallSet(**wrong)
    with pytest.raises(InputError, match=r"Stop\.aggregate"):
        Stop(aggregate="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Call\.candidate"):
        Call(candidate=" ")
    with pytest.raises(InputError, match=r"Choice\.propensity"):
        Choice(action=Stop(), propensity=0.0)
