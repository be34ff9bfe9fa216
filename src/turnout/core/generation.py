"""This module describes what a local model is asked, and what it says while it answers.

It is the wall between a gateway, which has no torch, and a room that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One request for one variant of the model."""

    prompt: str
    variant: str
    """Name of the way to run the model: a compute budget, an adapter."""
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy; otherwise the logits are divided by it before one token is drawn."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts at which the answer ends; they are not part of it."""

    def __post_init__(self) -> None:
        check_count("Generation.max_new_tokens", self.max_new_tokens)
        check_number("Generation.temperature", self.temperature, low=0.0)
        if any(not text for text in self.stop):
            raise InputError(sentence("Generation.stop", allowed="texts of at least one character", got="''"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some more text of the answer."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The answer is complete."""

    reason: str
    """`stop` at an end token or a stop text, `length` at the limit."""
    input_tokens: int
    output_tokens: int
    """Tokens that were generated, the end token included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """There will be no answer."""

    message: str


Event = Piece | Finished | Failed
Listener = Callable[[Event], None]
"""Called from the engine's thread; must return at once."""


class Ticket(Protocol):
    """A request that was taken."""

    def cancel(self) -> None:
        """Ask for no more tokens; safe from any thread."""
        ...


class LocalServer(Protocol):
    """A model that runs in this process, under several variants."""

    @property
    def variants(self) -> Sequence[str]:
        """Names of the ways to run it; candidates of a pool have these names."""
        ...

    def prompt(self, messages: Sequence[Mapping[str, object]]) -> str:
        """Return chat messages as the text that the model reads."""
        ...

    def submit(self, request: Generation, listener: Listener) -> Ticket:
        """Queue a request; `listener` hears its events.

        Raises `InputError` for what cannot be asked and `EngineFullError` where too many wait.
        """
        ...

    def close(self) -> None:
        """Fail what waits and runs, and give the model back."""
        ...


class EngineFullError(InputError):
    """As many requests wait for a local model as may."""
