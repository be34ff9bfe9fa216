"""This module plays synthetic tasks as well as they can be played."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.validation import check_kind, check_number
from turnout.sequential.actions import Aggregate, Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.dynamic import STOP, STOP_FIRST, Belief, Optimum
from turnout.sequential.synthetic import HINT, SIGNAL, SyntheticTask
from turnout.sequential.trace import Bounds, Trace


@final
class OptimalSequencer(Sequencer):
    """Follows the dynamic programme of its task, within the trace's bounds of USD, calls and steps.

    It asks one by one. Only where a trace allows fewer steps than rounds could sets of calls learn more.

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
        self._optima: dict[tuple[float | None, int, int], Optimum] = {}

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the action of the state that the trace has reached."""
        optimum = self._optimum(trace.bounds)
        value, action = optimum.best(self._belief(optimum, trace))
        name = f"m{action}"
        # Whoever may not be called now would be refused, and chosen again for ever.
        if action in (STOP, STOP_FIRST) or name not in trace.admissible:
            how: Aggregate = "first" if action == STOP_FIRST else "last"
            return Choice(action=Stop(aggregate=how), values={"value": value})
        return Choice(action=Call(candidate=name, sample=trace.next_sample(name)), values={"value": value})

    def _optimum(self, bounds: Bounds) -> Optimum:
        calls = min(self.task.rounds, bounds.calls or self.task.rounds)
        # More steps than calls and a stop bind nobody.
        steps = min(bounds.steps, calls + 1)
        key = (bounds.usd, calls, steps)
        if key not in self._optima:
            price, budget_usd = self.price, bounds.usd
            self._optima[key] = Optimum(
                self.task, price=price, budget_usd=budget_usd, calls=calls, steps=steps
            )
        return self._optima[key]

    def _belief(self, optimum: Optimum, trace: Trace) -> Belief:
        belief = optimum.start(int(trace.query.tags[HINT]))
        num_signals = len(self.task.signal[0])
        for observed in trace.observed:
            m = int(observed.call.candidate[1:])
            belief = belief.after(m * num_signals + int(observed.signals[SIGNAL]))
        return belief
