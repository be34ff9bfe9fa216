"""This module runs any experts as two products over sorted pairs; how to multiply is left open.

Axes: N pairs in the order of experts, K inputs, J outputs of a product.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from turnout.nn.executors.blocks import Stretch, segments_of
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.forms import inputs, outputs, weights_into
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.executors.memory import fresh_gradient
from turnout.nn.executors.once import once
from turnout.nn.executors.pair_rows import PairRows, pair_rows
from turnout.nn.executors.precision import product_dtype, wide
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan
from turnout.nn.uncompiled import untraced


class SortedExecutor(Executor):
    """Gather, multiply, activate, multiply, weight, add up: what the fast executors share.

    A plan of slots has as many rows in every expert, so it is one batched product for all. Merged experts
    are one product per group, as in the naive loop, which runs them.
    """

    @abstractmethod
    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return (N, J): each row times its expert's weight, x W^T."""

    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return the sum over each token's pairs of weight times expert."""
        rows, down_bias_ED = self.rows_of(plan, x_TD, stack), stack.down_bias_ED
        x_ND = rows.gathered(x_TD, stack.up_EFD.dtype)
        h_NF = rows.biased(self.product(x_ND, stack.up_EFD, plan), stack.up_bias_EF)
        out_ND = self.product(stack.activate(h_NF), stack.down_EDI, plan)
        if stack.finish is not None:
            out_ND, down_bias_ED = stack.finish(rows.biased(out_ND, down_bias_ED)), None
        return rows.combined(out_ND, down_bias_ED, x_TD.dtype)

    def rows_of(self, plan: SparsePlan, x_TD: Tensor, stack: Stack) -> PairRows:
        """Return what moves rows around the products."""
        return pair_rows(plan, x_TD, stack)

    def run_slots(self, x_TD: Tensor, plan: SlotPlan, stack: Stack) -> Tensor:
        """Return combine (expert (dispatch^T x)), all items and experts at once."""
        items, positions, slots = plan.dispatch_BSZ.shape
        experts, size, width = plan.num_experts, plan.slots_per_expert, stack.width
        exact, rows = wide(x_TD.dtype), items * plan.slots_per_expert
        x_BSD = x_TD.reshape(items, positions, width).to(exact)
        slots_BZD = plan.dispatch_BSZ.to(exact).transpose(1, 2) @ x_BSD
        # (B, E, P, D) -> (E, B * P, D): an expert's slots of all items side by side.
        slots_EBPD = slots_BZD.reshape(items, experts, size, width).transpose(0, 1)
        rows_ERD = slots_EBPD.reshape(experts, rows, width).to(stack.up_EFD.dtype)
        h_ERF = rows_ERD @ stack.up_EFD.transpose(1, 2)
        if stack.up_bias_EF is not None:
            h_ERF = h_ERF + stack.up_bias_EF[:, None]
        inner_NI = stack.activate(h_ERF.flatten(0, 1))
        out_ERD = inner_NI.reshape(experts, rows, inner_NI.shape[-1]) @ stack.down_EDI.transpose(1, 2)
        if stack.down_bias_ED is not None:
            out_ERD = out_ERD + stack.down_bias_ED[:, None]
        out_ND = out_ERD.flatten(0, 1)
        if stack.finish is not None:
            out_ND = stack.finish(out_ND)
        outs_BZD = out_ND.reshape(experts, items, size, width).transpose(0, 1).reshape(items, slots, width)
        y_BSD: Tensor = plan.combine_BSZ.to(exact) @ outs_BZD.to(exact)
        return y_BSD.reshape(x_TD.shape).to(x_TD.dtype)

    def run_merged(self, x_TD: Tensor, plan: MergedPlan, stack: Stack) -> Tensor:
        """Return each token's output of its group's merged expert."""
        return LoopExecutor().run_merged(x_TD, plan, stack)


@untraced
def segment_product(x_NK: Tensor, weight_EJK: Tensor, offsets_E: Tensor) -> Tensor:
    """Return (N, J): each row times the weight of its segment's expert, one product per segment."""
    y_NJ: Tensor = _SegmentProduct.apply(  # type: ignore[no-untyped-call]
        x_NK, weight_EJK, segments_of(offsets_E)
    )
    return y_NJ


class _SegmentProduct(torch.autograd.Function):
    """Writes each expert's gradient into its place, where autograd would make one of the size of all."""

    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_EJK: Tensor, chunks: list[Stretch]) -> Tensor:
        ctx.save_for_backward(x_NK, weight_EJK)
        ctx.chunks = chunks
        y_NJ = x_NK.new_empty(x_NK.shape[0], weight_EJK.shape[1])
        for chunk in chunks:
            rows, weight_JK = slice(chunk.start, chunk.end), weight_EJK[chunk.expert]
            exact = product_dtype(weight_JK, chunk.num_rows)
            y_NJ[rows] = outputs(x_NK[rows].to(exact), weight_JK.to(exact))
        return y_NJ

    @staticmethod
    @once
    def backward(ctx: Any, dy_NJ: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_NK, weight_EJK = ctx.saved_tensors
        dx_NK = torch.empty_like(x_NK) if ctx.needs_input_grad[0] else None
        if dx_NK is not None:
            for chunk in ctx.chunks:
                rows, weight_JK = slice(chunk.start, chunk.end), weight_EJK[chunk.expert]
                exact = product_dtype(weight_JK, chunk.num_rows)
                dx_NK[rows] = inputs(dy_NJ[rows].to(exact), weight_JK.to(exact))
        dweight_EJK = None
        if ctx.needs_input_grad[1]:
            dweight_EJK = weight_gradient(dy_NJ, x_NK, weight_EJK, ctx.chunks)
        return dx_NK, dweight_EJK, None


def weight_gradient(dy_NJ: Tensor, x_NK: Tensor, weight_EJK: Tensor, segments: list[Stretch]) -> Tensor:
    """Return the gradient in the weights (E, J, K): dy^T x of each segment, 0 for experts without rows."""
    dweight_EJK = fresh_gradient(weight_EJK, {segment.expert for segment in segments})
    for segment in segments:
        rows, grad_JK = slice(segment.start, segment.end), dweight_EJK[segment.expert]
        exact = product_dtype(grad_JK, segment.num_rows)
        weights_into(grad_JK, dy_NJ[rows].to(exact), x_NK[rows].to(exact))
    return dweight_EJK
