"""This module names how long work reports that it goes on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a phrase, the steps done and the steps in all."""


def silent(_phrase: str, _done: int, _total: int) -> None:
    """Report to nobody."""
