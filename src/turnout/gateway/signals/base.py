"""This module states what a signal is: facts of one request in, a finding out."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from turnout.core.query import Query
from turnout.features.tokens import clip
from turnout.gateway.beside import is_long
from turnout.gateway.conversation import USER, Turn, read_turns
from turnout.gateway.settings_signals import Scope
from turnout.gateway.wire import ChatRequest

MAX_CHARS = 20_000
"""At most so many characters of a text are read by a signal, half from each end, unless it reads all."""


@final
class Facts:
    """What signals may know of one request; what takes work is worked out when it is first asked for.

    Parameters
    ----------
    request:
        The parsed request.
    headers:
        Its headers, names in lower case.
    tenant:
        Whose it is; None where nobody needs a key.
    """

    def __init__(
        self,
        *,
        request: ChatRequest,
        headers: Sequence[tuple[bytes, bytes]],
        tenant: str | None = None,
    ) -> None:
        self.request = request
        self.headers = headers
        self.tenant = tenant
        self.shares: dict[str, dict[str, float]] = {}
        """Probabilities of tasks by the artifact that gave them; signals of one artifact ask it once."""

    @cached_property
    def is_long(self) -> bool:
        """Whether the texts take so long to read that it is done beside the event loop."""
        return is_long(self.request.members)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation, oldest first."""
        return read_turns(self.request.members)

    @cached_property
    def conversation(self) -> str:
        """Every text of the request."""
        return "\n".join(turn.text for turn in self.turns)

    @cached_property
    def before(self) -> str | None:
        """The user message before the last one; None where there is none."""
        users = [turn.text for turn in self.turns if turn.role == USER]
        return users[-2] if len(users) > 1 else None

    @cached_property
    def query(self) -> Query:
        """What an embedder reads."""
        return dataclasses.replace(self.request.query("signal"), text=self.user)

    @cached_property
    def user(self) -> str:
        """The last user message; of a request that is no conversation, such as texts to embed, all of it."""
        if self.request.text is not None:
            return self.request.text
        return "\n".join(turn.text for turn in self.turns if turn.role == USER)

    def text(self, scope: Scope) -> str:
        """Return what the user says, or all texts."""
        return self.conversation if scope == "conversation" else self.user

    def clipped(self, scope: Scope) -> str:
        """Return the same, at most `MAX_CHARS` characters of it."""
        return clip(self.text(scope), MAX_CHARS)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a signal says of one request."""

    holds: bool
    value: float | str | None = None
    """What was measured, for people."""
    note: str | None = None
    """What it was found by, such as the words or the kinds; never the text itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A finding, how long it took, and whether the default stands in for it."""

    name: str
    kind: str
    finding: Finding
    took_s: float
    failure: str | None = field(default=None)
    """Why the default holds: `too slow`, `busy`, or the kind of error; None where it does not."""


class Signal(ABC):
    """One signal of the configuration."""

    is_slow: bool = False
    """Whether it is read in a thread beside the event loop, and left alone after its budget.

    The others are read on the event loop, and beside it, for as long as it takes, where a request is long.
    """

    @abstractmethod
    def read(self, facts: Facts) -> Finding:
        """Return what holds for a request."""
