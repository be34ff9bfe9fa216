"""This module holds what the tests of the loop need: a sequencer that reads from a list, and small worlds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from turnout.core import Candidate, OutcomeTable, Query
from turnout.sequential import (
    AsyncEnvironment,
    Call,
    Choice,
    Environment,
    Observed,
    Sequencer,
    Think,
    Thought,
    Trace,
)
from turnout.sequential.actions import Action

USD = {"small": 0.01, "large": 0.1}


def query(text: str | None = "how many?") -> Query:
    """Return the one task of these tests."""
    return Query(id="q0", text=text)


def small_table() -> OutcomeTable:
    """Return four queries, two candidates, two samples of the small one; one cell is missing."""
    return OutcomeTable(
        queries=[Query(id=f"q{i}", text=f"question {i}") for i in range(4)],
        candidates=[Candidate(model="small"), Candidate(model="large")],
        query_index=[0, 0, 0, 1, 1, 2, 2, 3],
        candidate_index=[0, 0, 1, 0, 1, 0, 1, 0],
        sample=[0, 1, 0, 0, 0, 0, 0, 0],
        quality=[0, 1, 1, 1, 1, 0, 0.5, 1],
        cost_usd=[0.01, 0.02, 0.1, 0.01, 0.3, math.nan, 0.2, 0.01],
        output_tokens=[5, 6, 7, 8, 9, 10, math.nan, 12],
        latency_s=[1, 2, 3, 4, 5, 6, 7, 8],
        extras={"answer": ["a", "b", "b", "c", "c", None, "d", "e"], "sure": [0.5, 1, 1, 1, 1, None, 0, 1]},
    )


class Scripted(Sequencer):
    """Says its lines one after the other, the last of them for ever."""

    def __init__(self, *, lines: Sequence[Action]) -> None:
        self.lines = tuple(lines)

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the line of this step."""
        return Choice(action=self.lines[min(trace.steps, len(self.lines) - 1)])


class World(Environment):
    """Two candidates with known prices; those of `failing` answer with an error and charge all the same."""

    def __init__(
        self, *, failing: Sequence[str] = (), usd: dict[str, float] | None = None, latency_s: float = 1.0
    ) -> None:
        self.failing = tuple(failing)
        self.usd = USD if usd is None else usd
        self.latency_s = latency_s
        self.asked: list[Call] = []

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool."""
        return tuple(Candidate(model=name) for name in self.usd)

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the price, and ten cents for a thought."""
        return self.usd[request.candidate] if isinstance(request, Call) else 0.1

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Answer with the candidate's name."""
        self.asked.extend(calls)
        return tuple(self.observe(call) for call in calls)

    def observe(self, call: Call) -> Observed:
        """Return what came of one call."""
        is_bad = call.candidate in self.failing
        return Observed(
            call=call,
            answer=None if is_bad else f"{call.candidate} {call.sample}",
            usd=self.usd[call.candidate],
            latency_s=self.latency_s,
            error="it died" if is_bad else None,
        )

    def think(self, request: Think, trace: Trace) -> Thought:
        """Think for five cents."""
        return Thought(text="hm", usd=0.05, latency_s=0.5)


class AsyncWorld(AsyncEnvironment):
    """The same, for those who wait."""

    def __init__(self, *, failing: Sequence[str] = ()) -> None:
        self.world = World(failing=failing)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool."""
        return self.world.candidates

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the price."""
        return self.world.most_usd(request, trace)

    async def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Answer with the candidate's name."""
        return self.world.perform(calls, trace)

    async def think(self, request: Think, trace: Trace) -> Thought:
        """Think for five cents."""
        return self.world.think(request, trace)
