"""This module plays synthetic tasks as well as they can be played."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.validation import check_kind, check_number
from turnout.sequential.actions import Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.dynamic import STOP, Belief, Optimum
from turnout.sequential.synthetic import HINT, SIGNAL, SyntheticTask
from turnout.sequential.trace import Trace


@final
class OptimalSequencer(Sequencer):
    """Follows the dynamic programme of its task; the budget is that of the trace's bounds.

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
        self._optima: dict[float | None, Optimum] = {}

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the action of the state that the trace has reached."""
        budget_usd = trace.bounds.usd
        optimum = self._optima.get(budget_usd)
        if optimum is None:
            optimum = Optimum(self.task, price=self.price, budget_usd=budget_usd)
            self._optima[budget_usd] = optimum
        value, action = optimum.best(self._belief(optimum, trace))
        if action == STOP:
            return Choice(action=Stop(), values={"value": value})
        name = f"m{action}"
        return Choice(action=Call(candidate=name, sample=trace.next_sample(name)), values={"value": value})

    def _belief(self, optimum: Optimum, trace: Trace) -> Belief:
        belief = optimum.start(int(trace.query.tags[HINT]))
        num_signals = len(self.task.signal[0])
        for observed in trace.observed:
            m = int(observed.call.candidate[1:])
            belief = belief.after(m * num_signals + int(observed.signals[SIGNAL]))
        return belief
