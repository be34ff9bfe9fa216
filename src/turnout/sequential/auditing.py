"""This module decides a recorded task again and says where the decisions differ from the record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Chosen, Started, Trace
from turnout.sequential.wire import action_to_dict, withheld

TOLERANCE = 1e-9
"""Propensities closer than this count as equal: sums of floats may differ between machines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first choice that came out otherwise."""

    step: int
    """Number of the choice, from 0."""
    field: str
    """`action` or `propensity`."""
    recorded: object
    now: object

    def __str__(self) -> str:
        return f"step {self.step}: the {self.field} was {self.recorded!r} and is {self.now!r}"


def audit(
    trace: Trace, sequencer: Sequencer, *, query: Query | None = None, is_withheld: bool = False
) -> Difference | None:
    """Return the first difference between a record and what `sequencer` would choose, or None.

    The recorded events are shown to the sequencer one by one, with the recorded seed and the recorded lists
    of who was admissible; no environment is asked for anything.

    Parameters
    ----------
    trace:
        The record of a task, whole or so far.
    query:
        The original query, where the record has lost its text; it must be the one that was recorded.
    is_withheld:
        Whether texts of actions are compared by their digests, as they stand in a record without texts. A
        sequencer that reads answers cannot be audited without them.

    Raises
    ------
    InputError
        If `query` is another one.
    """
    again = Trace(_start(trace, query))
    rng = make_rng(trace.started.seed)
    for event in trace.events[1:]:
        if isinstance(event, Chosen):
            again.admissible = event.admissible
            choice = sequencer.next(again, rng)
            recorded = action_to_dict(event.choice.action)
            now = action_to_dict(choice.action, keep_text=not is_withheld)
            if recorded != now:
                return Difference(step=again.steps, field="action", recorded=recorded, now=now)
            was, comes = event.choice.propensity, choice.propensity
            if not math.isclose(was, comes, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return Difference(step=again.steps, field="propensity", recorded=was, now=comes)
        again.append(event)
    return None


def _start(trace: Trace, query: Query | None) -> Started:
    started = trace.started
    if query is None:
        return started
    recorded = started.query
    is_same = query.text == recorded.text or (
        query.text is not None and withheld(query.text) == recorded.text
    )
    if query.id != recorded.id or not is_same:
        raise InputError(
            sentence("audit: query", allowed=f"the one recorded as {recorded.id!r}", got=query.id)
        )
    return Started(
        query=query,
        candidates=started.candidates,
        bounds=started.bounds,
        seed=started.seed,
        reveals=started.reveals,
    )
