"""This module names what a sequencer may do next, and with what probability it did it.

An action is plain data: it asks for something and does nothing itself. Calls are named by candidate and
sample, because a second sample of the same model is another outcome (agent-level methods need repeats).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_name, check_number

Aggregate = Literal["last", "first", "vote"]
"""How calls become one answer: that of the last or first call that answered, or the most frequent one."""

AGGREGATES: tuple[Aggregate, ...] = ("last", "first", "vote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """Ask one candidate."""

    candidate: str
    """Name of the candidate."""
    sample: int = 0
    """Which of its samples: 0 for the first time it is asked this, 1 for a repeat, and so on."""
    text: str | None = None
    """What it is asked; None means the query itself. A sub-query is not replayable from a table."""

    def __post_init__(self) -> None:
        check_name("Call.candidate", self.candidate)
        check_count(f"Call.sample of {self.candidate!r}", self.sample, low=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallSet:
    """Ask several candidates at once; they do not see each other's answers."""

    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        if not self.calls or len(set(self.calls)) < len(self.calls):
            raise InputError(
                sentence("CallSet.calls", allowed="one or more calls, each once", got=self.calls or "none")
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Think:
    """Let the policy's own language model write on; what it writes comes back as a `Thought`."""

    messages: tuple[Mapping[str, str], ...]
    """Chat messages: mappings with `role` and `content`."""
    stop: tuple[str, ...] = ()
    """Texts at which the writing ends."""
    max_output_tokens: int = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Answer now."""

    aggregate: Aggregate = "last"
    """How the answer is made from the calls so far; unused where `answer` is given."""
    answer: str | None = None
    """The answer in the sequencer's own words; None means that `aggregate` finds it."""

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise InputError(sentence("Stop.aggregate", allowed=AGGREGATES, got=self.aggregate))


@dataclass(frozen=True, kw_only=True, slots=True)
class Escalate:
    """Hand the task to somebody outside the pool, such as a person."""

    to: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Abstain:
    """Give no answer."""

    why: str = ""


Action = Call | CallSet | Think | Stop | Escalate | Abstain


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An action with the probability with which it was drawn and the reason in a few words."""

    action: Action
    propensity: float = 1.0
    """Probability of this action (of the whole set, for a `CallSet`) given the trace; in (0, 1]."""
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    """What an audit may want to read of the reasons, such as the gain that was expected."""

    def __post_init__(self) -> None:
        check_number("Choice.propensity", self.propensity, low=0.0, high=1.0, allow_low=False)
