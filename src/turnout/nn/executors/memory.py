"""This module hands out the memory of gradients and results of experts, and takes it back for the next step.

Such a gradient is as large as all experts. Memory that is new to a process is filled with zeros page by page
first, which for a few hundred tokens takes longer than the products, and torch keeps none of that size for a
processor. So what a step frees waits for the next step's gradient of the same shape. Of more than a gigabyte
the operating system may have the pages meanwhile, and takes them when it runs short.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

LARGE_BYTES = 2**22
"""Smaller memory comes from torch, which has some at hand."""

OWN_BYTES = 2**30
"""So much memory waits as it is; asking the system to take its pages back costs a twentieth of a step."""

KEPT_BYTES = 2**33
"""So much memory waits at most; what waited longest goes first."""


@dataclass(eq=False)
class _Pages:
    """Memory of one shape and precision."""

    key: tuple[torch.Size, torch.dtype]
    memory: mmap.mmap
    busy: set[int] = field(default_factory=set)
    """Experts whose gradients the last step wrote."""
    is_new: bool = True
    """Nobody has had it yet, so that it is 0."""
    is_lent: bool = False


_waiting: deque[_Pages] = deque()


def fresh_gradient(weight_EJK: Tensor, busy: set[int]) -> Tensor:
    """Return memory for a gradient that the busy experts overwrite; it is 0 for all others."""
    num_bytes = weight_EJK.numel() * weight_EJK.itemsize
    is_ours = _is_ours(weight_EJK.device, num_bytes)
    idle = set(range(weight_EJK.shape[0])) - busy
    if is_ours:
        pages = _pages(weight_EJK.shape, weight_EJK.dtype)
        grad_EJK = _tensor(pages)
        if not pages.is_new:
            _clear(grad_EJK, pages, idle)
        pages.busy, pages.is_new = set(busy), False
        return grad_EJK
    grad_EJK = torch.empty(weight_EJK.shape, dtype=weight_EJK.dtype, device=weight_EJK.device)
    for expert in idle:
        grad_EJK[expert].zero_()
    return grad_EJK


def _clear(grad_EJK: Tensor, pages: _Pages, idle: set[int]) -> None:
    """Make the idle experts 0, whoever wrote there: autograd and users add to gradients and scale them.

    Those that were busy will be again, and are written. Of the others, nearly always 0 already and nearly all
    of the memory, the system takes the pages back and gives zeros to who reads them.
    """
    gives_zeros = sys.platform == "linux" and hasattr(mmap, "MADV_DONTNEED")
    size = grad_EJK[0].numel() * grad_EJK.itemsize
    bytes_N = grad_EJK.view(-1).view(torch.uint8)
    for expert in idle:
        start, stop = expert * size, (expert + 1) * size
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if not gives_zeros or expert in pages.busy or first >= last:
            bytes_N[start:stop].zero_()
            continue
        bytes_N[start:first].zero_()
        pages.memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        bytes_N[last:stop].zero_()


def scratch(rows_N: int, width: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return memory (N, width) on the device of `like` that holds anything, for rows that are all written."""
    if not _is_ours(like.device, rows_N * width * dtype.itemsize):
        return torch.empty(rows_N, width, dtype=dtype, device=like.device)
    # Numbers of rows differ from step to step: sizes with three leading bits, so that few of them wait.
    step = 1 << max(rows_N.bit_length() - 3, 0)
    shape = torch.Size((-(-rows_N // step) * step, width))
    return _tensor(_pages(shape, dtype, is_huge=True))[:rows_N]


def _is_ours(device: torch.device, num_bytes: int) -> bool:
    is_large = device.type == "cpu" and num_bytes >= LARGE_BYTES
    # What is compiled has memory of its own, and a graph can't hold pages that come and go.
    return is_large and hasattr(mmap, "MAP_ANONYMOUS") and not torch.compiler.is_compiling()


def release() -> None:
    """Give back to the operating system all that waits."""
    _waiting.clear()


def _pages(shape: torch.Size, dtype: torch.dtype, *, is_huge: bool = False) -> _Pages:
    for pages in list(_waiting):
        if pages.key == (shape, dtype):
            try:
                _waiting.remove(pages)
            except ValueError:  # another thread was faster
                continue
            pages.is_lent = False
            return pages
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if is_huge and hasattr(mmap, "MADV_HUGEPAGE"):
        # Pages of 2 MB, five hundred times fewer to look up. For gradients, written once a step, they are not
        # worth what it takes to find them.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return _Pages(key=(shape, dtype), memory=memory)


def _tensor(pages: _Pages) -> Tensor:
    """Return a tensor in these pages, which wait again once nothing shares its memory any more."""
    shape, dtype = pages.key
    view = memoryview(pages.memory)
    weakref.finalize(view, _wait, pages).atexit = False
    return torch.frombuffer(view, dtype=dtype).view(shape)


def _wait(pages: _Pages) -> None:
    _waiting.append(pages)
    total = 0
    for one in reversed(list(_waiting)):
        total += len(one.memory)
        if total <= KEPT_BYTES and (total <= OWN_BYTES or one.is_lent):
            continue
        try:
            # Nobody else may take it meanwhile.
            _waiting.remove(one)
        except ValueError:
            continue
        if total <= KEPT_BYTES:
            if hasattr(mmap, "MADV_FREE"):
                # What it reads as afterwards is what was written, or 0.
                one.memory.madvise(mmap.MADV_FREE)
            one.is_lent = True
            _waiting.appendleft(one)
