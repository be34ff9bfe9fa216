"""This module has Python look for cycles of garbage more rarely while a process does nothing but serve.

Every request makes some hundred objects that die by themselves, and by Python's own settings each few hundred
of them set off a search that finds nothing; it took a twelfth of the time of a request. What was there at the
start is never looked at again.
"""

from __future__ import annotations

import gc
import threading
from typing import final

YOUNG = 20_000
"""Objects that are new since the last search, from which on the young ones are searched; a few megabytes."""


@final
class RareSearch:
    """Searches more rarely from `start` to `stop`, in a process whose main thread is the gateway."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None

    def start(self) -> None:
        """Begin, unless the gateway is a guest in somebody's process, whose habits are its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, *self._before[1:])

    def stop(self) -> None:
        """Search as before; may be called where nothing was begun."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None
