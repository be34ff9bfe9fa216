"""This module calls candidates by lot: the floor of every comparison, and the best of logs to learn from."""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.core.validation import check_choice, check_number
from turnout.sequential.actions import AGGREGATES, Aggregate, Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Trace


@final
class RandomSequencer(Sequencer):
    """Calls a candidate drawn evenly from those not asked yet, and after each answer stops by lot.

    Parameters
    ----------
    stop:
        Probability of stopping once somebody has answered, in (0, 1]; 1 is random one-shot routing.
    aggregate:
        How the answers become one.
    """

    def __init__(self, *, stop: float = 1.0, aggregate: Aggregate = "last") -> None:
        check_choice("RandomSequencer.aggregate", aggregate, AGGREGATES)
        self.stop = check_number("RandomSequencer.stop", stop, low=0.0, high=1.0, allow_low=False)
        self.aggregate: Aggregate = aggregate

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return a call or the end, with the probability that it had."""
        asked = {observed.call.candidate for observed in trace.observed}
        options = [name for name in trace.admissible if name not in asked]
        end = Stop(aggregate=self.aggregate)
        if not options:
            return Choice(action=end, reason="nobody left to ask")
        has_answer = any(observed.error is None for observed in trace.observed)
        stop = self.stop if has_answer else 0.0
        if stop and rng.random() < stop:
            return Choice(action=end, propensity=stop, reason="by lot")
        name = options[int(rng.integers(len(options)))]
        return Choice(action=Call(candidate=name), propensity=(1.0 - stop) / len(options), reason="by lot")
