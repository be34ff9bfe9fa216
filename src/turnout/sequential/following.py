"""This module says whether what follows each choice in a record is what the loop would have let follow."""

from __future__ import annotations

from turnout.sequential.actions import Abstain, Action, Call, Escalate, Stop, Think
from turnout.sequential.contracts import elapsed_s
from turnout.sequential.rules import (
    callable_now,
    calls_of,
    chosen_end,
    first_call,
    forced_end,
    obstacle,
    too_dear,
)
from turnout.sequential.trace import Chosen, Ended, Event, Observed, Refused, Thought, Trace

Found = tuple[str, object, object]
"""What differs, what was recorded, and what it should have been."""


class Follow:
    """One step of a record: a choice and what came of it, or a bound that ended the task.

    Parameters
    ----------
    trace:
        The record up to this step; whoever holds it appends the events after they were looked at.
    is_withheld:
        Whether the record has lost its texts, so that votes cannot be counted again.
    """

    def __init__(self, trace: Trace, *, is_withheld: bool) -> None:
        self.trace = trace
        self.is_withheld = is_withheld
        self.action: Action | None = None
        self.waiting: list[Call] = []
        self.is_done = False

    def difference(self, event: Event) -> Found | None:
        """Return what is wrong with the next event, or None."""
        action = self.action
        if action is None:
            return self._beginning(event)
        if isinstance(event, Refused) and not self._has_begun():
            self.is_done = True
            return self._refusal(action, event)
        if isinstance(action, Stop | Escalate | Abstain):
            self.is_done = True
            return self._end(action, event)
        return self._response(action, event)

    def _has_begun(self) -> bool:
        return not isinstance(self.trace.last, Chosen)

    def _beginning(self, event: Event) -> Found | None:
        trace, bounds = self.trace, self.trace.bounds
        if not trace.can_pay(0.0):
            return "usd", trace.usd + trace.reserved_usd, f"at most {bounds.usd}"
        allowed = event.admissible if isinstance(event, Chosen) else ()
        could = callable_now(trace)
        if isinstance(event, Chosen):
            self.action = event.choice.action
            is_right = set(allowed) <= set(could) if bounds.usd is not None else allowed == could
            if not is_right:
                return "admissible", allowed, could
        forced = forced_end(trace, allowed if bounds.usd is not None else could, elapsed_s(trace))
        if isinstance(event, Ended) and event.how == "deadline" and bounds.deadline_s is not None:
            # The environment's clock, which may have run ahead of what the calls took.
            forced = forced_end(trace, could, bounds.deadline_s)
        if isinstance(event, Chosen) and forced is None:
            return None
        return None if event == forced else ("end", event, forced or "a choice")

    def _refusal(self, action: Action, event: Refused) -> Found | None:
        if isinstance(action, Stop | Escalate | Abstain) or event.action != action:
            return "event", event, action
        why = self._why(action)
        if why is not None:
            return None if event.why == why else ("event", event.why, why)
        # Nothing but money is left, and what a request may have cost is the world's word.
        allowed = too_dear(self.trace, 0.0).partition("; got")[0]
        last = self.trace.last
        is_affordable = isinstance(last, Chosen) and any(
            action == first_call(name) for name in last.admissible
        )
        if self.trace.bounds.usd is None or is_affordable:
            return "event", event, "no refusal"
        return None if event.why.startswith(allowed) else ("event", event.why, allowed)

    def _why(self, action: Action) -> str | None:
        if isinstance(action, Stop | Escalate | Abstain):
            return None
        return obstacle(action if isinstance(action, Think) else calls_of(action), self.trace)

    def _end(self, action: Stop | Escalate | Abstain, event: Event) -> Found | None:
        should = chosen_end(action, self.trace)
        if event == should:
            return None
        if self.is_withheld and isinstance(action, Stop) and action.aggregate == "vote":
            given = [Ended(how="stop", answer=o.answer, source=o.call) for o in self.trace.observed]
            if event in given:
                return None
        return "end", event, should

    def _response(self, action: Action, event: Event) -> Found | None:
        if isinstance(action, Think):
            self.is_done = True
            right = isinstance(event, Thought)
            why = self._why(action)
            return None if right and why is None else ("event", event, why or "a thought")
        if not isinstance(action, Stop | Escalate | Abstain) and not self._has_begun():
            why = self._why(action)
            if why is not None:
                return "event", event, why
            self.waiting = list(calls_of(action))
        call = self.waiting.pop(0)
        self.is_done = not self.waiting
        is_right = isinstance(event, Observed) and event.call == call
        return None if is_right else ("event", event, f"what came of {call}")
