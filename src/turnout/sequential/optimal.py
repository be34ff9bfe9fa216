"""This module plays synthetic tasks as well as they can be played."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.validation import check_kind, check_number
from turnout.sequential.actions import Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.dynamic import STOP, Belief, Optimum
from turnout.sequential.synthetic import HINT, SIGNAL, SyntheticTask
from turnout.sequential.trace import Bounds, Trace


@final
class OptimalSequencer(Sequencer):
    """Follows the dynamic programme of its task, within the trace's bounds of USD, calls and steps.

    Parameters
    ----------
    task:
        The task's distribution, which real life does not hand out.
    price:
        Quality that one USD must buy.
    """

    def __init__(self, *, task: SyntheticTask, price: float = 0.0) -> None:
        check_kind("OptimalSequencer.task", task, SyntheticTask)
        self.task = task
        self.price = check_number("OptimalSequencer.price", price, low=0.0)
        self._optima: dict[tuple[float | None, int], Optimum] = {}

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the action of the state that the trace has reached."""
        optimum = self._optimum(trace.bounds)
        value, action = optimum.best(self._belief(optimum, trace))
        name = f"m{action}"
        # Whoever may not be called now would be refused, and chosen again for ever.
        if action == STOP or name not in trace.admissible:
            return Choice(action=Stop(), values={"value": value})
        return Choice(action=Call(candidate=name, sample=trace.next_sample(name)), values={"value": value})

    def _optimum(self, bounds: Bounds) -> Optimum:
        # After the last step the loop gives the last answer, so a step allows a call.
        most = min(self.task.rounds, bounds.steps, bounds.calls or self.task.rounds)
        key = (bounds.usd, most)
        if key not in self._optima:
            self._optima[key] = Optimum(self.task, price=self.price, budget_usd=bounds.usd, calls=most)
        return self._optima[key]

    def _belief(self, optimum: Optimum, trace: Trace) -> Belief:
        belief = optimum.start(int(trace.query.tags[HINT]))
        num_signals = len(self.task.signal[0])
        for observed in trace.observed:
            m = int(observed.call.candidate[1:])
            belief = belief.after(m * num_signals + int(observed.signals[SIGNAL]))
        return belief
