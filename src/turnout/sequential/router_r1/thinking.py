"""This module gives an environment that cannot think a policy of its own, such as a model in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from turnout.core.candidate import Candidate
from turnout.core.query import Query
from turnout.sequential.actions import Call, Think
from turnout.sequential.contracts import Environment
from turnout.sequential.trace import Observed, Thought, Trace

Writer = Callable[[Think], Thought]
"""Writes on from chat messages; says what that cost in the thought."""


@final
class ThinkingEnvironment(Environment):
    """An environment with somebody who writes the policy's thoughts.

    Parameters
    ----------
    inner:
        Carries out calls and judges, such as a `ReplayEnvironment`.
    write:
        Writes thoughts.
    most_thought_usd:
        USD that one thought does not exceed; 0 for a model of one's own.
    """

    def __init__(self, inner: Environment, *, write: Writer, most_thought_usd: float = 0.0) -> None:
        self.inner = inner
        self.write = write
        self.most_thought_usd = most_thought_usd
        self.reveals = inner.reveals  # type: ignore[misc]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The inner environment's candidates."""
        return self.inner.candidates

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return what a request does not exceed in USD; NaN where nobody knows."""
        if isinstance(request, Think):
            return self.most_thought_usd
        return self.inner.most_usd(request, trace)

    def elapsed_s(self, trace: Trace) -> float:
        """Return the seconds since the start."""
        return self.inner.elapsed_s(trace)

    def accept(self, query: Query) -> Query:
        """Return the query; raises `InputError` for one that the inner environment does not know."""
        return self.inner.accept(query)

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the inner environment."""
        return self.inner.perform(calls, trace)

    def think(self, request: Think, trace: Trace) -> Thought:
        """Let the writer write."""
        return self.write(request)

    def judge(self, trace: Trace) -> float:
        """Return the inner environment's judgement of the answer."""
        return self.inner.judge(trace)
