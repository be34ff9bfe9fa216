"""This module lets code run uncompiled: compiled code doesn't see hooks that came after it.

Nor does it see what a process keeps, such as memory that waits and answers that were found once.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar, final

import torch

Given = ParamSpec("Given")
Found = TypeVar("Found")


@final
class _Blocks:
    """The blocks that are open in all threads; what torch keeps is one state for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._stance = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if not self._open:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._open += 1

    def leave(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._stance.close()


_blocks = _Blocks()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run everything that was given to `torch.compile` as it was written, in all threads, in this block.

    Dynamo asks nobody whether a module has got hooks since it was compiled, and would keep those that were
    there when it compiled. What is compiled goes on as it was after the last block that is open.
    """
    _blocks.enter()
    try:
        yield
    finally:
        _blocks.leave()


def untraced(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Make a function that `torch.compile` leaves as it was written: the graph ends before it.

    `torch.compiler.disable` as a decorator would import the compiler, which takes seconds, for everybody.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        whole: Callable[Given, Found] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return whole(*args, **kwargs)

    return run
