"""This module counts the floating-point operations that were executed, never those that a gate intended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


Shape = tuple[int, ...]


def executed_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work` and return its result and the FLOPs of its matrix products, convolutions and attention.

    A multiplication with an addition counts as two. What is elementwise (norms, activations) is not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_grouped()) as counter:
        result = work()
    return result, int(counter.get_total_flops())


def _grouped() -> dict[Any, Callable[..., int]]:
    """Return what torch's counter lacks: products of experts over groups of tokens, wherever they exist."""
    formulas: dict[Any, Callable[..., int]] = {}
    if hasattr(torch.ops.aten, "_grouped_mm"):
        formulas[torch.ops.aten._grouped_mm] = _product
    # `transformers` brings these two for what `_grouped_mm` does not do.
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        formulas[torch.ops.transformers.grouped_mm_fallback] = _product
        formulas[torch.ops.transformers.grouped_mm_fallback_backward] = _both_gradients
    return formulas


def _product(left: Shape, right: Shape, *_rest: object, **_named: object) -> int:
    """Tokens are split over the groups, so that each meets the matrix of one group."""
    if len(left) == len(right) == 3:
        return 2 * math.prod(left) * right[-1]
    return 2 * left[-2] * left[-1] * right[-1]


def _both_gradients(left: Shape, right: Shape, *_rest: object, **_named: object) -> int:
    """The gradients in both factors cost a product each."""
    return 2 * _product(left, right)
