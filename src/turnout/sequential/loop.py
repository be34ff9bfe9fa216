"""This module is the one loop of the room: choose, check, ask, observe, until an end.

`episode` does no input or output: it yields requests and is sent what came back. `run` and `run_async` drive
it. The loop, not the sequencer, holds the bounds, so no sequencer can overspend, run for ever, call somebody
outside the pool, answer with what it has not seen, or write the trace.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.sequential.actions import Abstain, Action, Escalate, Stop, Think
from turnout.sequential.contracts import AsyncEnvironment, Environment, Estimating, Sequencer
from turnout.sequential.rules import (
    Request,
    callable_now,
    calls_of,
    checked,
    chosen_end,
    first_call,
    forced_end,
    obstacle,
    too_dear,
)
from turnout.sequential.trace import Bounds, Chosen, Ended, Observed, Refused, Started, Thought, Trace, add

Response = tuple[Observed, ...] | Thought

DEFAULT_BOUNDS = Bounds()

_LEFT = "the task was left before it answered"


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
    """Carry a task on that `start` began; whoever holds the trace can account for it when it is cut.

    Where it is cut, calls on their way stand in the trace with a charge that is not known.
    """
    steps = episode(environment, sequencer, trace)
    request = next(steps, None)
    while request is not None:
        try:
            if isinstance(request, Think):
                response: Response = await environment.think(request, trace)
            else:
                response = await environment.perform(request, trace)
        except BaseException:
            _lose(environment, request, trace)
            raise
        request = _send(steps, response)
    return Outcome(trace=trace, ended=_ended(trace), quality=math.nan)


def start(environment: Estimating, query: Query, *, bounds: Bounds, seed: int) -> Trace:
    """Return a new trace of `query` in `environment`, which the loop alone writes."""
    environment.accept(query)
    return Trace(
        Started(
            query=query,
            candidates=tuple(candidate.name for candidate in environment.candidates),
            bounds=bounds,
            seed=seed,
            reveals=tuple(environment.reveals),
        ),
        is_sealed=True,
    )


def episode(
    environment: Estimating, sequencer: Sequencer, trace: Trace
) -> Generator[Request, Response, None]:
    """Yield what is to be asked, take what came back, and append all of it to the trace."""
    rng = make_rng(trace.started.seed)
    while not trace.is_over:
        trace.admissible = allowed = admissible(environment, trace)
        end = forced_end(trace, allowed, _elapsed_s(environment, trace))
        if end is not None:
            add(trace, end)
            return
        choice = checked(sequencer, sequencer.next(trace, rng))
        add(trace, Chosen(choice=choice, admissible=allowed))
        yield from _step(environment, choice.action, trace)


def admissible(environment: Estimating, trace: Trace) -> tuple[str, ...]:
    """Return the candidates that are alive and that the bounds leave room for."""
    alive = callable_now(trace)
    if trace.bounds.usd is None:
        return alive
    return tuple(name for name in alive if trace.can_pay(environment.most_usd(first_call(name), trace)))


def _step(environment: Estimating, action: Action, trace: Trace) -> Generator[Request, Response, None]:
    if isinstance(action, Stop | Escalate | Abstain):
        add(trace, chosen_end(action, trace))
        return
    request: Request = action if isinstance(action, Think) else calls_of(action)
    why = obstacle(request, trace)
    most_usd = () if why else _most_usd(environment, request, trace)
    if why is None and not trace.can_pay(sum(most_usd)):
        why = too_dear(trace, sum(most_usd))
    if why is not None:
        add(trace, Refused(action=action, why=why))
        return
    response = yield request
    events: tuple[Observed | Thought, ...] = _events(environment, request, response)
    for event, most in zip(events, most_usd, strict=True):
        add(trace, _reserving(event, most))


def _lose(environment: Estimating, request: Request, trace: Trace) -> None:
    """Note a request that nobody waits for any more: it was on its way, and may cost what it may cost."""
    lost: tuple[Observed | Thought, ...]
    if isinstance(request, Think):
        lost = (Thought(text="", error=_LEFT),)
    else:
        lost = tuple(Observed(call=call, error=_LEFT) for call in request)
    for event, most in zip(lost, _most_usd(environment, request, trace), strict=True):
        add(trace, _reserving(event, most))


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


def _elapsed_s(environment: Estimating, trace: Trace) -> float:
    if trace.bounds.deadline_s is None:
        return 0.0
    last = trace.last
    if isinstance(last, Observed | Thought) and last.error is None and math.isnan(last.latency_s):
        what = "Bounds.deadline_s: how long a call took is not known here"
        raise InputError(sentence(what, do="bound the steps, the calls or the spend instead"))
    return environment.elapsed_s(trace)


def _send(steps: Generator[Request, Response, None], response: Response) -> Request | None:
    try:
        return steps.send(response)
    except StopIteration:
        return None


def _ended(trace: Trace) -> Ended:
    last = trace.last
    assert isinstance(last, Ended)  # an episode returns after its end only
    return last
