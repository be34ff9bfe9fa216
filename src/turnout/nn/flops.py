"""This module counts the floating-point operations that were executed, never those that a gate intended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


def executed_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work` and return its result and the FLOPs of its matrix products, convolutions and attention.

    A multiplication with an addition counts as two. What is elementwise (norms, activations) is not counted.
    """
    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, int(counter.get_total_flops())
