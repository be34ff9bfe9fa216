"""This module keeps a second thread out of a model that runs in a way which one thread has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from turnout.core.errors import InputError, sentence


@final
class OneThread:
    """Who has set how a model runs; a forward of another thread would run in that way, unasked.

    Parameters
    ----------
    what
        Names the object in errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._owner = 0
        self._depth = 0

    def __reduce__(self) -> tuple[type[OneThread], tuple[str]]:
        """A copy is nobody's yet."""
        return OneThread, (self._what,)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other threads out; raises `InputError` where another one is in."""
        with self._lock:
            self.check()
            self._owner = threading.get_ident()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1

    def check(self) -> None:
        """Raise `InputError` where another thread is in."""
        if self._depth and self._owner != threading.get_ident():
            raise InputError(
                sentence(
                    f"{self._what}: another thread runs the model in a way of its own",
                    allowed="one thread at a time",
                    do="hold a lock around each use, or give each thread a model",
                )
            )
