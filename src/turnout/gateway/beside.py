"""This module does long work on a request's texts in threads beside the event loop.

Two threads: those of Python take turns, so that more of them would do no more and make the event loop wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from turnout.gateway.wire import Members

LONG_BYTES = 16_384
"""Members of a request, in bytes, up to which rules read and change it on the event loop: about 4 ms."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="turnout-long")


def is_long(members: Members) -> bool:
    """Whether what rules do with a request takes long."""
    return sum(len(memoryview(raw)) for raw in members.values()) > LONG_BYTES


async def beside(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what `work` does, in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, lambda: work(*args, **kwargs))
