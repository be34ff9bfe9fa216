"""This module calls candidates in a fixed order, and stops: the control of every comparison of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_choice, check_count
from turnout.sequential.actions import AGGREGATES, Aggregate, Call, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Trace


@final
class FixedOrder(Sequencer):
    """Calls `order` from the left until `answers` calls have answered, then stops.

    Parameters
    ----------
    order:
        Names of candidates; one that may stand in it several times is asked again for further samples.
        Those that are not admissible are passed over.
    answers:
        How many answers to gather; None means one per entry of `order`. With 1 the rest of the order is a
        list of fallbacks.
    aggregate:
        How the answers become one.
    """

    def __init__(
        self, *, order: Sequence[str], answers: int | None = None, aggregate: Aggregate = "last"
    ) -> None:
        if isinstance(order, str) or not order:
            raise InputError(sentence("FixedOrder.order", allowed="one or more names", got=order))
        check_choice("FixedOrder.aggregate", aggregate, AGGREGATES)
        self.order = tuple(order)
        self.answers = None if answers is None else check_count("FixedOrder.answers", answers)
        self.aggregate: Aggregate = aggregate

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the next call of the order, or the end."""
        answered = sum(observed.error is None for observed in trace.observed)
        if answered < (self.answers or len(self.order)):
            waiting = list(self.order)
            for observed in trace.observed:
                if observed.call.candidate in waiting:
                    waiting.remove(observed.call.candidate)
            for name in waiting:
                if name in trace.admissible:
                    return Choice(action=Call(candidate=name, sample=trace.next_sample(name)), reason="order")
        return Choice(action=Stop(aggregate=self.aggregate), reason="end of the order")
