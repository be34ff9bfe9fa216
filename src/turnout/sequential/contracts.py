"""This module states the room's two contracts: who chooses, and what the choices meet."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.sequential.actions import Call, Choice, Think
from turnout.sequential.trace import Chosen, Observed, Thought, Trace


class Watch(Protocol):
    """Reads a thought while it is written."""

    def feed(self, piece: str, /) -> str:
        """Return what can be told of the final answer now, and was not before."""


class Sequencer(Configured):
    """Chooses what comes next. A pure function of the trace and the generator: no clock, no network."""

    room: ClassVar[str] = "sequential"
    thinks: ClassVar[bool] = False
    """Whether it needs a language model of its own, because its actions include `Think`."""

    @abstractmethod
    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the next choice; `trace.admissible` names the candidates that may be called."""

    def watch(self, trace: Trace) -> Watch | None:
        """Return what reads the thought that is written next; None where nothing can be told before its end.

        Where the thought turns out to be an answer, all that the watch returned together is its beginning.
        """
        return None


class Scorer(Configured):
    """Judges one answer after its call, without knowing the right one: FrugalGPT's g(query, answer)."""

    room: ClassVar[str] = "sequential"

    @abstractmethod
    def score(self, query: Query, observed: Observed) -> float:
        """Return how good the answer seems, in [0, 1]; 0 for a call that failed."""


def elapsed_s(trace: Trace) -> float:
    """Return what the calls and thoughts of a trace took in seconds.

    Calls of one set run side by side, so the slowest of them counts.
    """
    total_s = slowest_s = 0.0
    for event in trace.events:
        if isinstance(event, Chosen):
            total_s, slowest_s = total_s + slowest_s, 0.0
        elif isinstance(event, Observed | Thought) and event.latency_s > slowest_s:
            slowest_s = event.latency_s
    return total_s + slowest_s


class Estimating(ABC):
    """What an environment says about money and time before it is asked for anything."""

    reveals: ClassVar[tuple[str, ...]] = ()
    """Names of signals that observations carry although real life would not show them."""

    @property
    @abstractmethod
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool."""

    @abstractmethod
    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the USD that a request should not exceed; NaN where nobody knows."""

    def elapsed_s(self, trace: Trace) -> float:
        """Return the seconds since the start, as far as the trace knows them."""
        return elapsed_s(trace)

    def accept(self, query: Query) -> Query:
        """Return the query; raises `InputError` for one that this environment does not know."""
        return query


class Environment(Estimating):
    """Carries out requests, and waits for them."""

    @abstractmethod
    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the candidates, in parallel where it can; a failure is an observation, not an exception."""

    def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's own model write on."""
        raise no_thinker(self)

    def judge(self, trace: Trace) -> float:
        """Return the quality in [0, 1] of the answer that was given; NaN where nobody can tell."""
        return math.nan


class AsyncEnvironment(Estimating):
    """Carries out requests without holding up the event loop."""

    @abstractmethod
    async def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the candidates, in parallel where it can; a failure is an observation, not an exception."""

    async def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's own model write on."""
        raise no_thinker(self)


def no_thinker(environment: Estimating) -> InputError:
    """Return what is raised where a sequencer wants to think and there is nothing to think with."""
    return InputError(
        sentence(
            f"{type(environment).__name__} has no language model for the policy",
            do="give it one, or take a sequencer that does not think",
        )
    )
