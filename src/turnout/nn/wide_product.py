"""This module multiplies states in bfloat16 with a gate's weight to the digits of single precision, on a GPU.

A product of two numbers in bfloat16 is exact in single precision, where tensor cores add up; a weight of
single precision is the sum of three in bfloat16. So logits need neither a copy of the states in single
precision, which is read and written more slowly than it is multiplied, nor products in single precision,
which run at a tenth of the speed.

Axes: T tokens, D width, E experts, P parts of a number.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.executors.once import once
from turnout.nn.probe import Probe

PARTS = 3
"""bfloat16 holds 8 of the 24 bits of single precision."""


def is_wide(x_TD: Tensor) -> bool:
    """Whether `wide_product` is what multiplies these states."""
    return x_TD.dtype == torch.bfloat16 and x_TD.device.type == "cuda" and _has_wide(x_TD.device)


def wide_product(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Return x W^T (T, E) in single precision of states in bfloat16; gradients flow, once.

    The gradient in the weight is of single precision too, that in the states is rounded to theirs.
    A second derivative raises `InputError`.
    """
    y_TE: Tensor = _WideProduct.apply(x_TD, weight_ED)  # type: ignore[no-untyped-call]
    return y_TE


def in_parts(value_XD: Tensor, parts: int = PARTS) -> list[Tensor]:
    """Return numbers in bfloat16 that add up to the value, the largest first; one for a value in bfloat16."""
    if value_XD.dtype == torch.bfloat16:
        return [value_XD]
    found, rest_XD = [], value_XD.float()
    for _ in range(parts):
        found.append(rest_XD.bfloat16())
        rest_XD = rest_XD - found[-1]
    return found


def _differentiated() -> InputError:
    what = "a gradient of a gate was differentiated: of states in bfloat16 it knows the first one alone"
    return InputError(sentence(what, do="give the gate states of single precision"))


class _WideProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_ED: Tensor) -> Tensor:
        ctx.save_for_backward(x_TD, weight_ED)
        parts = in_parts(weight_ED)
        y_TN = _product(x_TD, torch.cat(parts).T)
        return y_TN if len(parts) == 1 else y_TN.view(len(x_TD), len(parts), len(weight_ED)).sum(dim=1)

    @staticmethod
    @functools.partial(once, error=_differentiated)
    def backward(ctx: Any, dy_TE: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_TD, weight_ED = ctx.saved_tensors
        dx_TD = dweight_ED = None
        dy = in_parts(dy_TE.float())
        if ctx.needs_input_grad[0]:
            weight = in_parts(weight_ED)
            # What is left out is below the rounding of the result.
            pairs = [(dy[0], weight[0]), (dy[1], weight[0])]
            pairs += [(dy[0], weight[1])] if len(weight) > 1 else []
            dx_TD = torch.cat([left for left, _ in pairs], dim=1) @ torch.cat([right for _, right in pairs])
        if ctx.needs_input_grad[1]:
            dweight_ND = _product(torch.cat(dy, dim=1).T, x_TD)
            dweight_ED = dweight_ND.view(len(dy), *weight_ED.shape).sum(dim=0).to(weight_ED.dtype)
        return dx_TD, dweight_ED


def _product(left_NK: Tensor, right_KM: Tensor) -> Tensor:
    """Return a product of bfloat16 in single precision."""
    if left_NK.device.type != "cuda":
        return left_NK.float() @ right_KM.float()
    product: Any = torch.mm
    y_NM: Tensor = product(left_NK, right_KM, out_dtype=torch.float32)
    return y_NM


@torch.inference_mode()
def _is_right(device: torch.device) -> bool:
    """Whether this torch multiplies bfloat16 to single precision here, to all digits of it."""
    left, right = (torch.arange(256.0, device=device).view(16, 16).bfloat16() for _ in range(2))
    return torch.equal(_product(left, right).double(), left.double() @ right.double())


_has_wide = Probe(_is_right, otherwise=False)
