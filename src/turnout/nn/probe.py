"""This module finds out once for a process what works on a device, and keeps no answer that says nothing.

What a probe tries may fail for want of memory, or since nothing may be tried while a CUDA graph is captured:
then the answer is that of a device where it does not work, for this time, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, final

import torch

from turnout.nn.uncompiled import untraced

Found = TypeVar("Found")

NO_MEMORY = ("out of memory", "allocate memory", "alloc_failed")
"""What the errors say that are of no class of their own: those of libraries, and of a processor."""


@final
class Probe(Generic[Found]):
    """What `try_it` finds for its arguments, found once for each; `otherwise` where it raises anything.

    It is tried in a thread of its own, where no hook on saved tensors (activation checkpointing), dispatch
    mode (a count of operations), autocast or inference mode of whoever asks first is in force. Compiled code
    asks as it stands: what is found in a trace would be found again in each.
    """

    def __init__(self, try_it: Callable[..., Found], *, otherwise: Found) -> None:
        self._try_it, self._otherwise = try_it, otherwise
        self._known: dict[tuple[Hashable, ...], Found] = {}

    @untraced
    def __call__(self, *case: Hashable) -> Found:
        """Return what was found for these arguments of `try_it`."""
        if case in self._known:
            return self._known[case]
        if is_captured():
            return self._otherwise
        try:
            with ThreadPoolExecutor(max_workers=1) as pool:
                found = pool.submit(self._try_it, *case).result()
        except Exception as error:  # noqa: BLE001 - a library or compiler may fail in any way; others do its work
            if _is_of_memory(error):
                return self._otherwise
            found = self._otherwise
        return self._known.setdefault(case, found)

    def forget(self) -> None:
        """Try everything again when it is asked for."""
        self._known.clear()


def is_captured() -> bool:
    """Whether a CUDA graph is captured by this thread: then nobody may ask or wait for anything."""
    has_context: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return has_context and torch.cuda.is_current_stream_capturing()


def _is_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    is_of_class = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_of_class or any(words in said for words in NO_MEMORY)
