"""This module records one task from its start to its end: append-only, and all that a sequencer may know.

A sequencer sees a trace and nothing else, so whatever it decides can be replayed from the record. Scores of
answers are not part of it, unless an environment says that it reveals them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.sequential.actions import Action, Call, Choice

End = Literal["stop", "abstain", "escalate", "steps", "budget", "deadline", "nobody"]
"""How a task ended: by the sequencer's own action, or by a bound; `nobody` when no candidate is left."""

SLACK = 1e-9
"""Share of a budget by which rounding may exceed it, so that a budget can be spent to the last cent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What one task may use; the loop holds it, whatever the sequencer wants."""

    steps: int = 16
    """Most choices of the sequencer, refused ones and thoughts included."""
    usd: float | None = None
    """Most USD, thoughts included; a call that may cost more than what is left is refused.

    A charge that nobody knows counts with the most that it may have been.
    """
    calls: int | None = None
    """Most calls of candidates."""
    deadline_s: float | None = None
    """Seconds after which no further call starts."""

    def __post_init__(self) -> None:
        check_count("Bounds.steps", self.steps)
        if self.calls is not None:
            check_count("Bounds.calls", self.calls)
        for name in ("usd", "deadline_s"):
            if getattr(self, name) is not None:
                check_number(f"Bounds.{name}", getattr(self, name), low=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The first event."""

    query: Query
    candidates: tuple[str, ...]
    bounds: Bounds
    seed: int
    """Seeds the generator that the sequencer draws from."""
    reveals: tuple[str, ...] = ()
    """What observations hold besides the answer, such as `quality` (which real life does not show)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The sequencer chose."""

    choice: Choice
    admissible: tuple[str, ...] = ()
    """The candidates among which it could choose; a propensity means nothing without them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The choice before was not carried out; it cost nothing."""

    action: Action
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """One call came back. NaN and None stand for unknown; raises `InputError` for a charge below 0."""

    call: Call
    answer: str | None = None
    """The text that came back; None where none was recorded, or on an error."""
    usd: float = math.nan
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float = math.nan
    error: str | None = None
    """Why no answer came; None for an answer, be it an unrecorded text."""
    signals: Mapping[str, float] = field(default_factory=dict)
    """What else is known after the call, by name."""
    finish: str | None = None
    """Why the model stopped, where that was before its own end: `length` or `content_filter`."""
    reserved_usd: float = 0.0
    """What a charge that is not known counts with against the bound; the loop sets it."""

    def __post_init__(self) -> None:
        _check_charge("Observed.usd", self.usd)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thought:
    """The policy's own model wrote; raises `InputError` for a charge below 0."""

    text: str
    usd: float = math.nan
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float = math.nan
    error: str | None = None
    """Why nothing was written; None for a thought."""
    finish: str | None = None
    """Why the model stopped, where that was before its own end: `length` or `content_filter`."""
    reserved_usd: float = 0.0
    """What a charge that is not known counts with against the bound; the loop sets it."""

    def __post_init__(self) -> None:
        _check_charge("Thought.usd", self.usd)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The last event."""

    how: End
    answer: str | None = None
    source: Call | None = None
    """The call whose answer was given; None for an answer in the sequencer's own words, or none."""
    why: str = ""


Event = Started | Chosen | Refused | Observed | Thought | Ended


@final
class Trace:
    """The events of one task, in order. What was charged and counted can be read and not assigned.

    Parameters
    ----------
    started:
        The first event.
    is_sealed:
        Whether `append` is refused, because a loop alone writes it: what a sequencer holds, it only reads.

    Attributes
    ----------
    admissible:
        Names of the candidates that may be called now; the loop sets it before it asks the sequencer.
    began_s:
        The monotonic clock in seconds when this object was made; no part of what is recorded.
    """

    __slots__ = (
        "_asked",
        "_dead",
        "_events",
        "_is_sealed",
        "_num_unknown_charges",
        "_observed",
        "_reserved_usd",
        "_started",
        "_steps",
        "_usd",
        "admissible",
        "began_s",
    )

    def __init__(self, started: Started, *, is_sealed: bool = False) -> None:
        self._started = started
        self._is_sealed = is_sealed
        self.began_s = time.perf_counter()
        self._usd = 0.0
        self._reserved_usd = 0.0
        self._num_unknown_charges = 0
        self._steps = 0
        self.admissible: tuple[str, ...] = started.candidates
        self._events: list[Event] = [started]
        self._observed: list[Observed] = []
        self._asked: set[Call] = set()
        self._dead: set[str] = set()

    @property
    def started(self) -> Started:
        """The first event."""
        return self._started

    @property
    def usd(self) -> float:
        """Charged so far in USD; a charge that is not known counts as 0 here."""
        return self._usd

    @property
    def reserved_usd(self) -> float:
        """USD that charges nobody knows may have come to at most; 0 in a task without a bound of USD."""
        return self._reserved_usd

    @property
    def num_unknown_charges(self) -> int:
        """Calls and thoughts whose charge is not known."""
        return self._num_unknown_charges

    @property
    def steps(self) -> int:
        """Choices so far."""
        return self._steps

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far."""
        return tuple(self._events)

    @property
    def query(self) -> Query:
        """The task."""
        return self._started.query

    @property
    def bounds(self) -> Bounds:
        """What the task may use."""
        return self._started.bounds

    @property
    def observed(self) -> tuple[Observed, ...]:
        """All calls that came back, errors included, in order."""
        return tuple(self._observed)

    @property
    def last(self) -> Event:
        """The newest event."""
        return self._events[-1]

    @property
    def num_calls(self) -> int:
        """Calls that came back."""
        return len(self._observed)

    @property
    def dead(self) -> frozenset[str]:
        """Candidates that failed in this task; they are not admissible any more."""
        return frozenset(self._dead)

    @property
    def remaining_usd(self) -> float:
        """USD that may still be spent, less what is reserved; infinity without a bound."""
        budget_usd = self._started.bounds.usd
        return math.inf if budget_usd is None else max(budget_usd - self._usd - self._reserved_usd, 0.0)

    def can_pay(self, most_usd: float) -> bool:
        """Return whether the bound leaves room for a charge of up to `most_usd`; NaN fits no bound."""
        budget_usd = self._started.bounds.usd
        return budget_usd is None or fits(self._usd + self._reserved_usd, most_usd, budget_usd)

    @property
    def is_over(self) -> bool:
        """Whether the last event is an end."""
        return isinstance(self._events[-1], Ended)

    def append(self, event: Event) -> None:
        """Add an event; raises `InputError` in a sealed trace, after the end, and for a second start."""
        if self._is_sealed:
            raise InputError(
                sentence(
                    "Trace.append: a loop writes this trace",
                    got=event,
                    do="return a Choice from `next`; whoever is not the loop reads",
                )
            )
        self._add(event)

    def _add(self, event: Event) -> None:
        if self.is_over or isinstance(event, Started):
            raise InputError(
                sentence("Trace.append", allowed="an event between the start and the end", got=event)
            )
        self._events.append(event)
        if isinstance(event, Chosen):
            self._steps += 1
        elif isinstance(event, Observed):
            self._observed.append(event)
            self._asked.add(event.call)
            if event.error is not None:
                self._dead.add(event.call.candidate)
            self._charge(event)
        elif isinstance(event, Thought):
            self._charge(event)

    def has_asked(self, call: Call) -> bool:
        """Return whether this very call came back before; the loop makes no call twice."""
        return call in self._asked

    def next_sample(self, candidate: str) -> int:
        """Return the sample number that a further call of `candidate` would have; no call has it yet."""
        samples = [o.call.sample for o in self._observed if o.call.candidate == candidate]
        return max(len(samples), max(samples, default=-1) + 1)

    def _charge(self, event: Observed | Thought) -> None:
        if math.isnan(event.usd):
            self._num_unknown_charges += 1
            self._reserved_usd += event.reserved_usd
        else:
            self._usd += event.usd


def add(trace: Trace, event: Event) -> None:
    """Add an event to a trace, sealed or not; for loops and audits."""
    trace._add(event)


def fits(spent_usd: float, most_usd: float, budget_usd: float) -> bool:
    """Return whether a charge fits a budget; sums of floats may miss it by a billionth of it."""
    return spent_usd + most_usd <= budget_usd + SLACK * budget_usd


def _check_charge(where: str, usd: object) -> None:
    """Raise `InputError` unless a charge is a number of USD that gives no budget back, or NaN."""
    if not (isinstance(usd, float) and math.isnan(usd)):
        check_number(f"{where} (NaN where it is not known)", usd, low=0.0, allow_high=False)
