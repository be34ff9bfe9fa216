"""This module turns a task in an environment around: the policy asks to be told, and writes when it likes.

`run` calls the policy; a trainer that samples many policies at once needs it the other way. The loop, its
bounds and its trace are the same.
"""

from __future__ import annotations

from typing import final

from turnout.core.query import Query
from turnout.sequential.actions import Think
from turnout.sequential.contracts import Environment, Sequencer
from turnout.sequential.loop import DEFAULT_BOUNDS, Outcome, Response, episode, start
from turnout.sequential.rules import Request
from turnout.sequential.trace import Bounds, Ended, Thought, add


@final
class RoutingDialogue:
    """A task that waits for the policy's turns.

    Parameters
    ----------
    environment:
        Carries out calls and judges.
    sequencer:
        A sequencer that thinks, such as `RouterR1`.
    query:
        The task.
    prompt:
        What the policy reads first; None takes the first request's messages, joined by newlines.
    bounds, seed:
        As for `run`.
    """

    def __init__(
        self,
        environment: Environment,
        sequencer: Sequencer,
        query: Query,
        *,
        prompt: str | None = None,
        bounds: Bounds = DEFAULT_BOUNDS,
        seed: int = 0,
    ) -> None:
        self.environment = environment
        self.trace = start(environment, query, bounds=bounds, seed=seed)
        self._steps = episode(environment, sequencer, self.trace)
        self._waiting = self._advance(None)
        messages = [] if self._waiting is None else self._waiting.messages
        self.prompt = "\n".join(m["content"] for m in messages) if prompt is None else prompt

    def reply(self, text: str) -> str | None:
        """Take the policy's turn; return what it reads next, None where the task is over."""
        if self._waiting is None:
            return None
        self._waiting = self._advance(Thought(text=text, usd=0.0))
        return None if self._waiting is None else self._waiting.messages[-1]["content"]

    @property
    def outcome(self) -> Outcome:
        """What the task came to; one that was cut before its end has abstained."""
        last = self.trace.last
        if not isinstance(last, Ended):
            last = Ended(how="abstain", why="the policy was cut")
            add(self.trace, last)
            self._waiting = None
        return Outcome(trace=self.trace, ended=last, quality=self.environment.judge(self.trace))

    def _advance(self, response: Response | None) -> Think | None:
        """Go on to the next time that the policy is to write; calls are carried out on the way."""
        try:
            request: Request = next(self._steps) if response is None else self._steps.send(response)
            while not isinstance(request, Think):
                request = self._steps.send(self.environment.perform(request, self.trace))
        except StopIteration:
            return None
        return request
