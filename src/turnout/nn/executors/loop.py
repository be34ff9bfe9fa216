"""This module runs plans one expert after the other, plainly: slow, and the truth for the others."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.nn.executors.contract import Executor
from turnout.nn.executors.precision import wide
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan


class LoopExecutor(Executor):
    """The slow truth: autograd does the gradients, nothing is sorted, and no two experts share a product."""

    is_plain = True

    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return the sum over each token's pairs of weight times expert."""
        y_TD = _zeros(x_TD, plan.weights_N, stack)
        for expert in range(plan.num_experts):
            is_here_N = plan.experts_N == expert
            tokens_N = plan.tokens_N[is_here_N]
            if len(tokens_N):
                out_ND = stack.one(expert, x_TD[tokens_N].to(stack.up_EFD.dtype)).to(y_TD.dtype)
                weighted_ND = out_ND * plan.weights_N[is_here_N, None].to(y_TD.dtype)
                y_TD = y_TD.index_add(0, tokens_N, weighted_ND)
        return y_TD.to(x_TD.dtype)

    def run_slots(self, x_TD: Tensor, plan: SlotPlan, stack: Stack) -> Tensor:
        """Return combine (expert (dispatch^T x)), item by item."""
        size = plan.slots_per_expert
        items = []
        positions = plan.dispatch_BSZ.shape[1]
        exact = wide(x_TD.dtype)
        for item, dispatch_SZ in enumerate(plan.dispatch_BSZ.to(exact)):
            x_SD = x_TD[item * positions : (item + 1) * positions].to(exact)
            slots_ZD = (dispatch_SZ.T @ x_SD).to(stack.up_EFD.dtype)
            outs = [stack.one(e, slots_ZD[e * size : (e + 1) * size]) for e in range(plan.num_experts)]
            items.append(plan.combine_BSZ[item].to(exact) @ torch.cat(outs).to(exact))
        y_TD = torch.cat(items) if items else _zeros(x_TD, plan.combine_BSZ, stack)
        return y_TD.to(x_TD.dtype)

    def run_merged(self, x_TD: Tensor, plan: MergedPlan, stack: Stack) -> Tensor:
        """Return each token's output of its group's merged expert; 0 at padding."""
        y_TD = _zeros(x_TD, plan.mix_GE, stack)
        for group, mix_E in enumerate(plan.mix_GE):
            is_here_T = plan.groups_T == group
            if plan.mask_T is not None:
                is_here_T = is_here_T & plan.mask_T
            (tokens_N,) = is_here_T.nonzero(as_tuple=True)
            if len(tokens_N):
                merged = merge(stack, mix_E[None])
                out_ND = merged.one(0, x_TD[tokens_N].to(merged.up_EFD.dtype)).to(y_TD.dtype)
                y_TD = y_TD.index_add(0, tokens_N, out_ND)
        return y_TD.to(x_TD.dtype)


def _zeros(x_TD: Tensor, weights: Tensor, stack: Stack) -> Tensor:
    """Return zeros (T, D), of single precision at least, with a graph also where no expert runs."""
    y_TD = torch.zeros(x_TD.shape, dtype=wide(x_TD.dtype), device=x_TD.device)
    for one in (x_TD, weights, stack.up_EFD, stack.down_EDI):
        if one.requires_grad:
            y_TD = y_TD + one.flatten()[:0].sum().to(y_TD.dtype)
    return y_TD


def merge(stack: Stack, mix_GE: Tensor) -> Stack:
    """Return G experts, each the weighted mean of all parameters; made in single precision at least."""

    def mixed(weight_EX: Tensor | None) -> Tensor | None:
        if weight_EX is None:
            return None
        exact = wide(weight_EX.dtype)
        mean_GX: Tensor = torch.tensordot(mix_GE.to(exact), weight_EX.to(exact), dims=1)
        return mean_GX.to(weight_EX.dtype)

    up_GFD, down_GDI = mixed(stack.up_EFD), mixed(stack.down_EDI)
    assert up_GFD is not None
    assert down_GDI is not None
    return Stack(
        up_EFD=up_GFD,
        down_EDI=down_GDI,
        up_bias_EF=mixed(stack.up_bias_EF),
        down_bias_ED=mixed(stack.down_bias_ED),
        activate=stack.activate,
        finish=stack.finish,
        is_swiglu=stack.is_swiglu,
    )
