"""This module runs experts as one batched product over pairs, each with a copy of its expert's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from turnout.nn.executors.blocks import segments_of
from turnout.nn.executors.once import once
from turnout.nn.executors.products import SortedExecutor, weight_gradient
from turnout.nn.plan import SparsePlan


class BatchedExecutor(SortedExecutor):
    """For few tokens on an accelerator: two launches, nothing to wait for, weights copied once per pair.

    Memory: N times one expert, so it is not for many tokens. On the one GPU it was measured on, it is slower
    than the grouped product from one token on (`benchmarks/nn/NOTES.md`).
    """

    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return each row times its expert's weight."""
        y_NJ: Tensor = _BatchedProduct.apply(  # type: ignore[no-untyped-call]
            x_NK, weight_EJK, plan.experts_N, plan.offsets_E
        )
        return y_NJ


class _BatchedProduct(torch.autograd.Function):
    """Autograd adds the gradients of copies up in the weights' precision; a product per expert is exact."""

    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_EJK: Tensor, experts_N: Tensor, offsets_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_NK, weight_EJK, experts_N, offsets_E)
        # Under autocast a product is of half precision, and autograd calls `backward` outside of it.
        return torch.bmm(weight_EJK[experts_N], x_NK[:, :, None]).squeeze(2).to(x_NK.dtype)

    @staticmethod
    @once
    def backward(ctx: Any, dy_NJ: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_NK, weight_EJK, experts_N, offsets_E = ctx.saved_tensors
        dx_NK = dweight_EJK = None
        if ctx.needs_input_grad[0]:
            dx_NK = torch.bmm(dy_NJ[:, None], weight_EJK[experts_N]).squeeze(1)
        if ctx.needs_input_grad[1]:
            dweight_EJK = weight_gradient(dy_NJ, x_NK, weight_EJK, segments_of(offsets_E))
        return dx_NK, dweight_EJK, None, None
