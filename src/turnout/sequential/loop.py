"""This module is the one loop of the room: choose, check, ask, observe, until an end.

`episode` does no input or output: it yields requests and is sent what came back. `run` and `run_async` drive
it. The loop, not the sequencer, holds the bounds, so no sequencer can overspend, run for ever, call somebody
outside the pool or answer with what it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import lru_cache

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.sequential.actions import Abstain, Action, Call, CallSet, Choice, Escalate, Stop, Think
from turnout.sequential.aggregate import aggregate
from turnout.sequential.contracts import AsyncEnvironment, Environment, Estimating, Sequencer
from turnout.sequential.trace import Bounds, Chosen, Ended, Observed, Refused, Started, Thought, Trace

Request = tuple[Call, ...] | Think
Response = tuple[Observed, ...] | Thought

DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a task came to."""

    trace: Trace
    ended: Ended
    quality: float
    """Quality of the answer in [0, 1]; NaN where nobody can tell."""

    @property
    def answer(self) -> str | None:
        """The answer's text; None where there is none or it was not recorded."""
        return self.ended.answer

    @property
    def usd(self) -> float:
        """What all calls and thoughts cost together, in USD."""
        return self.trace.usd


def run(
    environment: Environment,
    sequencer: Sequencer,
    query: Query,
    *,
    bounds: Bounds = DEFAULT_BOUNDS,
    seed: int = 0,
) -> Outcome:
    """Carry a task out in an environment and return its outcome."""
    trace = start(environment, query, bounds=bounds, seed=seed)
    steps = episode(environment, sequencer, trace)
    request = next(steps, None)
    while request is not None:
        response = (
            environment.think(request, trace)
            if isinstance(request, Think)
            else environment.perform(request, trace)
        )
        request = _send(steps, response)
    ended = _ended(trace)
    return Outcome(trace=trace, ended=ended, quality=environment.judge(trace))


async def run_async(
    environment: AsyncEnvironment,
    sequencer: Sequencer,
    query: Query,
    *,
    bounds: Bounds = DEFAULT_BOUNDS,
    seed: int = 0,
) -> Outcome:
    """Carry a task out like `run`, without holding up the event loop."""
    return await carry_on_async(environment, sequencer, start(environment, query, bounds=bounds, seed=seed))


async def carry_on_async(environment: AsyncEnvironment, sequencer: Sequencer, trace: Trace) -> Outcome:
    """Carry a task on that `start` began; whoever holds the trace can account for it when it is cut."""
    steps = episode(environment, sequencer, trace)
    request = next(steps, None)
    while request is not None:
        if isinstance(request, Think):
            response: Response = await environment.think(request, trace)
        else:
            response = await environment.perform(request, trace)
        request = _send(steps, response)
    return Outcome(trace=trace, ended=_ended(trace), quality=math.nan)


def start(environment: Estimating, query: Query, *, bounds: Bounds, seed: int) -> Trace:
    """Return a new trace of `query` in `environment`."""
    environment.accept(query)
    return Trace(
        Started(
            query=query,
            candidates=tuple(candidate.name for candidate in environment.candidates),
            bounds=bounds,
            seed=seed,
            reveals=tuple(environment.reveals),
        )
    )


def episode(
    environment: Estimating, sequencer: Sequencer, trace: Trace
) -> Generator[Request, Response, None]:
    """Yield what is to be asked, take what came back, and append all of it to the trace."""
    rng = make_rng(trace.started.seed)
    while not trace.is_over:
        trace.admissible = allowed = admissible(environment, trace)
        end = _bound(environment, trace)
        if end is not None:
            trace.append(end)
            return
        choice = checked(sequencer, sequencer.next(trace, rng))
        trace.append(Chosen(choice=choice, admissible=allowed))
        yield from _step(environment, choice.action, trace)


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


def admissible(environment: Estimating, trace: Trace) -> tuple[str, ...]:
    """Return the candidates that are alive and that the bounds leave room for."""
    if trace.bounds.calls is not None and trace.num_calls >= trace.bounds.calls:
        return ()
    dead = trace.dead
    alive = [name for name in trace.started.candidates if name not in dead]
    if trace.bounds.usd is None:
        return tuple(alive)
    return tuple(name for name in alive if trace.can_pay(environment.most_usd(_first_call(name), trace)))


@lru_cache(maxsize=4096)
def _first_call(name: str) -> Call:
    return Call(candidate=name)


def _step(environment: Estimating, action: Action, trace: Trace) -> Generator[Request, Response, None]:
    if isinstance(action, Stop | Escalate | Abstain):
        trace.append(_end(action, trace))
        return
    request: Request = action if isinstance(action, Think) else _calls(action)
    why = _obstacle(request, trace)
    most_usd = () if why else _most_usd(environment, request, trace)
    if why is None and not trace.can_pay(sum(most_usd)):
        why = _too_dear(trace, sum(most_usd))
    if why is not None:
        trace.append(Refused(action=action, why=why))
        return
    response = yield request
    for event, most in zip(_events(environment, request, response), most_usd, strict=True):
        trace.append(_reserving(event, most))


def _most_usd(environment: Estimating, request: Request, trace: Trace) -> tuple[float, ...]:
    """Return what every part of a request may cost in USD; 0 where no bound asks for it."""
    parts = (request,) if isinstance(request, Think) else request
    if trace.bounds.usd is None:
        return (0.0,) * len(parts)
    return tuple(environment.most_usd(part, trace) for part in parts)


def _reserving(event: Observed | Thought, most_usd: float) -> Observed | Thought:
    """Return the event with what its charge counts with against the bound, if nobody knows the charge."""
    reserved_usd = most_usd if math.isnan(event.usd) else 0.0
    return event if event.reserved_usd == reserved_usd else replace(event, reserved_usd=reserved_usd)


def _events(
    environment: Estimating, request: Request, response: Response
) -> tuple[Observed, ...] | tuple[Thought]:
    """Return what is to be appended; what was not asked for must not be charged or answered with."""
    if isinstance(request, Think) and isinstance(response, Thought):
        return (response,)
    if not isinstance(request, Think) and not isinstance(response, Thought):
        answered = tuple(observed.call for observed in response)
        if answered == request:
            return tuple(response)
    raise InputError(
        sentence(
            f"{type(environment).__name__} answered something else than it was asked",
            allowed="one observation per call, in order, or one thought",
            got=response,
        )
    )


def _calls(action: Call | CallSet) -> tuple[Call, ...]:
    return (action,) if isinstance(action, Call) else action.calls


def _obstacle(request: Request, trace: Trace) -> str | None:
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


def _too_dear(trace: Trace, most_usd: float) -> str:
    got = "a cost that is not known" if math.isnan(most_usd) else f"up to {most_usd:.3g} usd"
    return sentence("the rest of the budget", allowed=f"{trace.remaining_usd:.3g} usd", got=got)


def _bound(environment: Estimating, trace: Trace) -> Ended | None:
    """Return the end that a bound forces now, or None."""
    bounds = trace.bounds
    if trace.steps >= bounds.steps:
        return _forced("steps", f"{bounds.steps} steps", trace)
    if bounds.deadline_s is not None and environment.elapsed_s(trace) >= bounds.deadline_s:
        return _forced("deadline", f"{bounds.deadline_s:g} s", trace)
    if len(trace.dead) == len(trace.started.candidates):
        return _forced("nobody", "every candidate failed", trace)
    if not trace.admissible and trace.num_calls == 0:
        return _forced("budget", f"{bounds.usd:g} usd buy no call", trace)
    return None


def _forced(how: str, why: str, trace: Trace) -> Ended:
    """End for the sequencer, with the last answer there is."""
    answer, source = aggregate("last", trace.observed)
    return Ended(how=how, answer=answer, source=source, why=why)  # type: ignore[arg-type]


def _end(action: Stop | Escalate | Abstain, trace: Trace) -> Ended:
    if isinstance(action, Escalate):
        return Ended(how="escalate", why=f"{action.to}: {action.why}" if action.why else action.to)
    if isinstance(action, Abstain):
        return Ended(how="abstain", why=action.why)
    if action.answer is not None:
        return Ended(how="stop", answer=action.answer)
    answer, source = aggregate(action.aggregate, trace.observed)
    return Ended(how="stop", answer=answer, source=source, why="" if source else "no call had answered")


def _send(steps: Generator[Request, Response, None], response: Response) -> Request | None:
    try:
        return steps.send(response)
    except StopIteration:
        return None


def _ended(trace: Trace) -> Ended:
    last = trace.last
    assert isinstance(last, Ended)  # an episode returns after its end only
    return last
