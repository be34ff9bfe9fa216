"""This module states what a task of several turns must do for a model to learn it."""

from __future__ import annotations

from typing import Protocol


class Dialogue(Protocol):
    """One task, from its prompt to its end."""

    @property
    def prompt(self) -> str:
        """What the model reads first."""

    def reply(self, text: str, /) -> str | None:
        """Take what the model wrote in its turn; return what it reads next, None at the end."""
