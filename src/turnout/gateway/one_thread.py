"""This module keeps matrix products on one thread while a process does nothing but serve.

A decision multiplies small matrices. Spread over all cores they take no less time, and the threads of the
library go on spinning for the next one: on two cores that others use, a request took twice as long, and
four times the processor. Several workers would each take all cores so.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np

TOLD_BY = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables of the environment by which somebody says how many threads there should be."""

_FORMS = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@final
class OneThread:
    """Sets one thread from `start` to `stop`, in a process whose main thread is the gateway."""

    def __init__(self) -> None:
        self._before: int | None = None

    def start(self) -> None:
        """Begin, unless somebody has said how many, or the gateway is a guest in somebody's process."""
        if threading.current_thread() is not threading.main_thread() or any(map(os.environ.get, TOLD_BY)):
            return
        self._before = num_threads()
        if self._before is not None:
            _call("set", 1)

    def stop(self) -> None:
        """Set as many as before; may be called where nothing was begun."""
        if self._before is not None:
            _call("set", self._before)
            self._before = None


def num_threads() -> int | None:
    """Return how many threads numpy's OpenBLAS may use; None where numpy came with another library."""
    return _call("get")


def _call(what: str, *numbers: int) -> int | None:
    found = _function(what)
    return None if found is None else found(*numbers)


def _function(what: str) -> Callable[..., int] | None:
    folder = Path(np.__file__).parent
    for place in (folder.parent / "numpy.libs", folder / ".dylibs"):
        for path in place.glob("*openblas*"):
            library = ctypes.CDLL(str(path))  # the one that numpy has loaded
            for form in _FORMS:
                if hasattr(library, form.format(what)):
                    return getattr(library, form.format(what))  # type: ignore[no-any-return]
    return None
