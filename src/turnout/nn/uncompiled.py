"""This module lets models run uncompiled for a while: compiled code doesn't see hooks that came after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import final

import torch


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
