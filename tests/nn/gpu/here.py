"""Where the tests of this folder run: on a CUDA device, or where TURNOUT_GPU says, to try them without one.

python -m pytest -m gpu tests/nn/gpu
TURNOUT_GPU=cpu python -m pytest -m gpu tests/nn/gpu
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

DEVICE = torch.device(os.environ.get("TURNOUT_GPU", "cuda"))
IS_CUDA = DEVICE.type == "cuda"

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(IS_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Raise where somebody waits for the GPU."""
    if not IS_CUDA:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def far(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return |found - right| / |right|; NaN where one of them holds NaN."""
    found, right = found.detach().cpu().double(), right.detach().cpu().double()
    return float((found - right).norm() / right.norm().clamp(min=1e-30))
