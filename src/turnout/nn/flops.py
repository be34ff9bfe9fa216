"""This module counts the floating-point operations that were executed, never those that a gate intended."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Result = TypeVar("Result")


def executed_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work` and return its result and the FLOPs of its matrix products, convolutions and attention.

    A multiplication with an addition counts as two. What is elementwise (norms, activations) is not counted.
    The formulas are those of `torch.utils.flop_counter`, whose own counter also follows every module in and
    out, which costs more than a small model's work; a test compares the two.
    """
    counter = _Counter()
    with counter:
        result = work()
    return result, counter.total


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operations below autograd cost."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas: dict[Any, Callable[..., int]] = {**flop_registry, **_grouped()}
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func._overloadpacket)
        if formula is None and _is_composite(func):
            # In inference mode an operation made of others arrives whole.
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


@functools.cache
def _is_composite(func: Any) -> bool:
    has: bool = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return has


def _grouped() -> dict[Any, Callable[..., int]]:
    """Return what torch's counter lacks, wherever it exists: products over groups of tokens, and oneDNN's."""
    formulas: dict[Any, Callable[..., int]] = {}
    if hasattr(torch.ops.aten, "_grouped_mm"):
        formulas[torch.ops.aten._grouped_mm] = _product
    # `transformers` brings these two for what `_grouped_mm` does not do.
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        formulas[torch.ops.transformers.grouped_mm_fallback] = _product
        formulas[torch.ops.transformers.grouped_mm_fallback_backward] = _both_gradients
    for name, formula in (("product", _pairs), ("swiglu", _pairs_swiglu), ("gradient", _pairs_gradient)):
        # Those of `executors.triton_products`, once it is imported.
        if hasattr(torch.ops.turnout, f"pairs_{name}"):
            formulas[getattr(torch.ops.turnout, f"pairs_{name}")] = formula
    # What `executors.forms` calls where it is faster than torch's own product.
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        formulas[torch.ops.mkldnn._linear_pointwise] = _linear
    return formulas


def _product(left: Tensor, right: Tensor, *_rest: object, **_named: object) -> int:
    """Tokens are split over the groups, so that each meets the matrix of one group."""
    if left.dim() == right.dim() == 3:
        return 2 * left.numel() * right.shape[-1]
    return 2 * left.shape[-2] * left.shape[-1] * right.shape[-1]


def _pairs(_x: Tensor, weight_EJK: Tensor, *_rest: Any, out_val: Tensor, **_named: object) -> int:
    return 2 * out_val.shape[0] * weight_EJK.shape[1] * weight_EJK.shape[2]


def _pairs_swiglu(_x: Tensor, up_EFD: Tensor, rows_N: Tensor, *_rest: Any, **_named: object) -> int:
    return 2 * rows_N.shape[0] * up_EFD.shape[1] * up_EFD.shape[2]


def _pairs_gradient(left_NJ: Tensor, right_NK: Tensor, *_rest: object, **_named: object) -> int:
    return 2 * right_NK.numel() * left_NJ.shape[1]


def _linear(rows: Tensor, weight: Tensor, *_rest: object, **_named: object) -> int:
    return 2 * rows.numel() * weight.shape[0]


def _both_gradients(left: Tensor, right: Tensor, *_rest: object, **_named: object) -> int:
    """The gradients in both factors cost a product each."""
    return 2 * _product(left, right)
