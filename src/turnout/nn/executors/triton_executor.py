"""This module runs experts by Triton kernels, for accelerators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.executors import triton_tiles
from turnout.nn.executors.once import once
from turnout.nn.executors.products import SortedExecutor
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.executors.triton_layout import blocks_of, lay_out, lying
from turnout.nn.executors.triton_pair_rows import KernelRows
from turnout.nn.executors.triton_passes import combine, gather, swiglu_backward
from turnout.nn.executors.triton_products import pairs_gradient, pairs_product, pairs_swiglu
from turnout.nn.executors.triton_tiles import IS_INTERPRETED
from turnout.nn.experts import Stack
from turnout.nn.operation import current
from turnout.nn.plan import SparsePlan


class TritonExecutor(SortedExecutor):
    """Gathers while it reads, and waits for nothing: no offset is read back.

    SwiGLU experts without biases: gate, up and activation in one kernel, down in another, the weighted sum of
    each token in a third, in the order of its columns, so that every run gives the same. Others run by one
    product kernel. Needs the extra `triton`, and a device that Triton compiles for, or its interpreter.
    Measured in `benchmarks/nn/NOTES.md`. Raises `InputError` for tensors on a
    processor outside of the interpreter. Cost: 6 N D I operations forward, twice that backward.

    Source: the idea to gather within the product is ScatterMoE's (arXiv 2403.08245, abstract).
    """

    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return the sum over each token's pairs of weight times expert."""
        _check_device(x_TD)
        plan = lying(plan)
        if torch.float64 in (x_TD.dtype, stack.up_EFD.dtype):
            # The kernels add up in single precision.
            return SegmentExecutor().run_pairs(x_TD, plan, stack)
        if not (stack.is_plain_swiglu and x_TD.dtype == stack.up_EFD.dtype):
            return super().run_pairs(x_TD, plan, stack)
        given = (x_TD, plan.weights_N, stack.up_EFD, stack.down_EDI)
        # Not of `needs_input_grad`, which knows of no `no_grad`.
        is_kept = torch.is_grad_enabled() and any(value.requires_grad for value in given)
        with current(x_TD):
            y_TD: Tensor = _Swiglu.apply(*given, plan, is_kept)  # type: ignore[no-untyped-call]
        return y_TD

    def rows_of(self, plan: SparsePlan, _x_TD: Tensor, _stack: Stack) -> KernelRows:
        """Return what moves rows around the products."""
        return KernelRows(plan)

    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return each row times its expert's weight."""
        with current(x_NK):
            rows = triton_tiles.rows_for(plan.num_pairs, plan.num_experts, weight_EJK.dtype)
            blocks = blocks_of(plan.offsets_E, num_pairs=plan.num_pairs, rows=rows)
        y_NJ: Tensor = _Product.apply(x_NK, weight_EJK, plan.offsets_E, blocks)  # type: ignore[no-untyped-call]
        return y_NJ


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_EJK: Tensor, offsets_E: Tensor, blocks: Tensor) -> Tensor:
        ctx.save_for_backward(x_NK, weight_EJK, offsets_E, blocks)
        return pairs_product(x_NK, weight_EJK, None, blocks, len(x_NK))

    @staticmethod
    @once
    def backward(ctx: Any, dy_NJ: Tensor) -> tuple[Tensor | None, ...]:
        x_NK, weight_EJK, offsets_E, blocks = ctx.saved_tensors
        dx_NK = dweight_EJK = None
        if ctx.needs_input_grad[0]:
            dx_NK = pairs_product(dy_NJ, weight_EJK.transpose(1, 2), None, blocks, len(x_NK))
        if ctx.needs_input_grad[1]:
            dweight_EJK = pairs_gradient(dy_NJ, x_NK, None, offsets_E)
        return dx_NK, dweight_EJK, None, None


class _Swiglu(torch.autograd.Function):
    """Forward keeps what was before the activation; the outputs of pairs are not kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_N: Tensor,
        up_EFD: Tensor,
        down_EDI: Tensor,
        plan: SparsePlan,
        is_kept: bool,
    ) -> Tensor:
        tokens_N, num_pairs = plan.tokens_N, plan.num_pairs
        blocks, place_TK = lay_out(
            tokens_N,
            plan.columns_N,
            plan.offsets_E,
            num_tokens=plan.num_tokens,
            num_columns=plan.num_columns,
            rows=triton_tiles.rows_for(num_pairs, plan.num_experts, up_EFD.dtype),
        )
        inner_NI, h_NF = pairs_swiglu(x_TD, up_EFD, tokens_N, blocks, is_kept=is_kept)
        out_ND = pairs_product(inner_NI, down_EDI, None, blocks, num_pairs)
        ctx.save_for_backward(
            x_TD, weights_N, up_EFD, down_EDI, tokens_N, plan.offsets_E, blocks, place_TK, h_NF
        )
        return combine(out_ND, place_TK, weights_N, x_TD.dtype)

    @staticmethod
    @once
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        with current(dy_TD):
            return (*_gradients(ctx.needs_input_grad, dy_TD, *ctx.saved_tensors), None, None)


def _gradients(
    needs: tuple[bool, ...],
    dy_TD: Tensor,
    x_TD: Tensor,
    weights_N: Tensor,
    up_EFD: Tensor,
    down_EDI: Tensor,
    tokens_N: Tensor,
    offsets_E: Tensor,
    blocks: Tensor,
    place_TK: Tensor,
    h_NF: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients in x_TD, weights_N, up_EFD and down_EDI, None where it is not needed."""
    num_pairs = len(tokens_N)
    dinner_NI = pairs_product(dy_TD, down_EDI.transpose(1, 2), tokens_N, blocks, num_pairs)
    inner_NI, dh_NF, dweights_N = swiglu_backward(h_NF, dinner_NI, weights_N)
    dx_TD = dup_EFD = ddown_EDI = None
    if needs[0]:
        dx_ND = pairs_product(dh_NF, up_EFD.transpose(1, 2), None, blocks, num_pairs)
        dx_TD = combine(dx_ND, place_TK, None, x_TD.dtype)
        del dx_ND
    if needs[2]:
        # Gathered beforehand: whole tiles are read fast, and each row by many programs.
        dup_EFD = pairs_gradient(dh_NF, gather(x_TD, tokens_N), None, offsets_E)
    if needs[3]:
        ddown_EDI = pairs_gradient(dy_TD, inner_NI, tokens_N, offsets_E)
    return dx_TD, dweights_N.to(weights_N.dtype), dup_EFD, ddown_EDI


def _check_device(x_TD: Tensor) -> None:
    if x_TD.device.type == "cpu" and not IS_INTERPRETED:
        raise InputError(
            sentence(
                "TritonExecutor: device",
                allowed="one that Triton compiles for",
                got="cpu",
                do="use AutoExecutor here, or set TRITON_INTERPRET=1 before turnout is imported",
            )
        )
