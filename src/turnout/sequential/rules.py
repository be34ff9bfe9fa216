"""This module holds the rules of the loop that a trace alone decides; an audit applies them again."""

from __future__ import annotations

import math
from functools import lru_cache

from turnout.core.errors import InputError, sentence
from turnout.sequential.actions import Abstain, Action, Call, CallSet, Choice, Escalate, Stop, Think
from turnout.sequential.aggregate import aggregate
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Ended, Trace

Request = tuple[Call, ...] | Think


def checked(sequencer: Sequencer, choice: object) -> Choice:
    """Return what a sequencer chose; raises `InputError` where it is no choice of an action."""
    if isinstance(choice, Choice) and isinstance(choice.action, Action):
        return choice
    raise InputError(
        sentence(
            f"{type(sequencer).__name__}.next",
            allowed="a Choice of an action",
            got=choice,
            do="return Choice(action=...)",
        )
    )


def callable_now(trace: Trace) -> tuple[str, ...]:
    """Return the candidates that may be called if money did not matter."""
    if trace.bounds.calls is not None and trace.num_calls >= trace.bounds.calls:
        return ()
    dead = trace.dead
    return tuple(name for name in trace.started.candidates if name not in dead)


@lru_cache(maxsize=4096)
def first_call(name: str) -> Call:
    """Return the call that says whether the bounds leave room for a candidate."""
    return Call(candidate=name)


def calls_of(action: Call | CallSet) -> tuple[Call, ...]:
    """Return the calls of an action."""
    return (action,) if isinstance(action, Call) else action.calls


def obstacle(request: Request, trace: Trace) -> str | None:
    """Return why a request may not be carried out whatever it costs, or None."""
    if isinstance(request, Think):
        return None
    pool = trace.started.candidates
    for call in request:
        if call.candidate not in pool:
            return sentence("the call's candidate", allowed=pool, got=call.candidate)
        if call.candidate in trace.dead:
            return sentence(f"{call.candidate!r} failed in this task", do="call another, or stop")
        if trace.has_asked(call):
            what = f"{call.candidate!r} was asked this, sample {call.sample}, before"
            return sentence(what, do="take the next sample, ask something else, or stop")
    limit = trace.bounds.calls
    if limit is not None and trace.num_calls + len(request) > limit:
        return sentence("calls of the task", allowed=f"at most {limit}", got=trace.num_calls + len(request))
    return None


def too_dear(trace: Trace, most_usd: float) -> str:
    """Return why a request is too dear."""
    got = "a cost that is not known" if math.isnan(most_usd) else f"up to {most_usd:.3g} usd"
    return sentence("the rest of the budget", allowed=f"{trace.remaining_usd:.3g} usd", got=got)


def forced_end(trace: Trace, allowed: tuple[str, ...], elapsed_s: float) -> Ended | None:
    """Return the end that a bound forces now, or None; `allowed` are those who may be called."""
    bounds = trace.bounds
    if trace.steps >= bounds.steps:
        return _forced("steps", f"{bounds.steps} steps", trace)
    if bounds.deadline_s is not None and elapsed_s >= bounds.deadline_s:
        return _forced("deadline", f"{bounds.deadline_s:g} s", trace)
    if len(trace.dead) == len(trace.started.candidates):
        return _forced("nobody", "every candidate failed", trace)
    if not allowed and trace.num_calls == 0:
        return _forced("budget", f"{bounds.usd:g} usd buy no call", trace)
    return None


def _forced(how: str, why: str, trace: Trace) -> Ended:
    """End for the sequencer, with the last answer there is."""
    answer, source = aggregate("last", trace.observed)
    return Ended(how=how, answer=answer, source=source, why=why)  # type: ignore[arg-type]


def chosen_end(action: Stop | Escalate | Abstain, trace: Trace) -> Ended:
    """Return the end that a sequencer chose."""
    if isinstance(action, Escalate):
        return Ended(how="escalate", why=f"{action.to}: {action.why}" if action.why else action.to)
    if isinstance(action, Abstain):
        return Ended(how="abstain", why=action.why)
    if action.answer is not None:
        return Ended(how="stop", answer=action.answer)
    answer, source = aggregate(action.aggregate, trace.observed)
    return Ended(how="stop", answer=answer, source=source, why="" if source else "no call had answered")
