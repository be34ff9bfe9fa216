"""This module decides a recorded task again and says where the record differs.

The sequencer chooses again, and the loop's rules are applied again to what was recorded: what followed each
choice, what was refused, the bounds, and the answer. What a call said and charged is the world's word and is
taken from the record; `record.verify` with its digest guards that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.sequential.contracts import Sequencer
from turnout.sequential.following import Follow, Found
from turnout.sequential.rules import checked
from turnout.sequential.trace import Chosen, Started, Trace, add
from turnout.sequential.wire import action_to_dict, withheld

TOLERANCE = 1e-9
"""Propensities closer than this count as equal: sums of floats may differ between machines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first thing that came out otherwise."""

    step: int
    """Number of the choice, from 0."""
    field: str
    """`action` or `propensity` of the choice; `admissible`, `event`, `usd` or `end` of what went with it."""
    recorded: object
    now: object

    def __str__(self) -> str:
        return f"step {self.step}: the {self.field} was {self.recorded!r} and is {self.now!r}"


def audit(
    trace: Trace,
    sequencer: Sequencer,
    *,
    query: Query | None = None,
    is_withheld: bool = False,
    is_whole: bool = True,
) -> Difference | None:
    """Return the first difference between a record and what `sequencer` and the loop would do, or None.

    The recorded events are shown to the sequencer one by one, with the recorded seed and the recorded lists
    of who was admissible; no environment is asked for anything. So a bound of USD is checked against what was
    charged: a task that was charged more, because an environment knew its prices badly, is reported. A
    deadline is checked against the recorded latencies.

    Parameters
    ----------
    trace:
        The record of a task.
    query:
        The original query, where the record has lost its text; it must be the one that was recorded.
    is_withheld:
        Whether texts of actions are compared by their digests, as they stand in a record without texts. A
        sequencer that reads answers cannot be audited without them.
    is_whole:
        Whether the task should have ended; False audits one so far.

    Raises
    ------
    InputError
        If `query` is another one, or `sequencer` returns no choice.
    """
    again = Trace(_start(trace, query), is_sealed=True)
    rng = make_rng(trace.started.seed)
    follow: Follow | None = None
    for event in trace.events[1:]:
        if follow is None or follow.is_done:
            follow = Follow(again, is_withheld=is_withheld)
        found = follow.difference(event)
        if found is None and isinstance(event, Chosen):
            found = _choice_difference(event, again, sequencer, rng, is_withheld=is_withheld)
        if found is not None:
            field, recorded, now = found
            return Difference(step=again.steps, field=field, recorded=recorded, now=now)
        add(again, event)
    if is_whole and not again.is_over:
        return Difference(step=again.steps, field="end", recorded=None, now="an end")
    return None


def _choice_difference(
    event: Chosen, again: Trace, sequencer: Sequencer, rng: np.random.Generator, *, is_withheld: bool
) -> Found | None:
    again.admissible = event.admissible
    choice = checked(sequencer, sequencer.next(again, rng))
    recorded = action_to_dict(event.choice.action)
    now = action_to_dict(choice.action, keep_text=not is_withheld)
    if recorded != now:
        return "action", recorded, now
    was, comes = event.choice.propensity, choice.propensity
    if not math.isclose(was, comes, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return "propensity", was, comes
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
