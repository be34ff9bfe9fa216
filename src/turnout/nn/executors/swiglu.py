"""This module runs SwiGLU experts block by block, with gradients of its own (`swiglu_back`).

A block's rows are gathered at once and multiplied expert by expert, its activations are computed in pieces
that stay near, and all outputs are added up in one pass.

Axes: a block has M rows of several experts, N pairs, D width, I inner size, F = 2 I.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from turnout.nn.executors.blocks import Block, blocks_of, pieces_of
from turnout.nn.executors.forms import outputs, outputs_into
from turnout.nn.executors.memory import scratch
from turnout.nn.executors.once import once
from turnout.nn.executors.precision import WIDE_ROWS, product_dtype, wide
from turnout.nn.executors.sums import TokenSums
from turnout.nn.executors.swiglu_back import Backward, Weights

PIECE_ROWS = 512
"""Rows whose activations are computed together: few enough that the next pass finds them in a cache."""


def run_swiglu(
    x_TD: Tensor,
    weights_N: Tensor,
    up_EFD: Tensor,
    down_EDI: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    *,
    tokens_N: Tensor,
    offsets_E: Tensor,
    weights: tuple[Weights, Weights] | None = None,
) -> Tensor:
    """Return y_TD, the sum over each token's pairs of weight * down(silu(gate x) * up x).

    Gradients flow to everything that is not whole numbers, once: there is no second derivative. `weights` are
    how the experts' are read where no gradients are recorded; one after the other as they are if None.
    """
    parts = (x_TD, weights_N, up_EFD, down_EDI, *biases)
    exact = product_dtype(up_EFD[0], WIDE_ROWS)
    blocks = blocks_of(offsets_E, is_even=exact.itemsize == 2 and up_EFD.device.type == "cpu")
    if not (torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)):
        return _run(*parts, tokens_N, blocks, kept=None, weights=weights)
    y_TD: Tensor = _Swiglu.apply(*parts, tokens_N, blocks)  # type: ignore[no-untyped-call]
    return y_TD


def _run(
    x_TD: Tensor,
    weights_N: Tensor,
    up_EFD: Tensor,
    down_EDI: Tensor,
    up_bias_EF: Tensor | None,
    down_bias_ED: Tensor | None,
    tokens_N: Tensor,
    blocks: list[Block],
    *,
    kept: Tensor | None,
    weights: tuple[Weights, Weights] | None = None,
) -> Tensor:
    """Return y_TD; write the states before each activation into `kept` (N, F), unless it is None."""
    weights, biases = weights or (Weights(up_EFD), Weights(down_EDI)), (up_bias_EF, down_bias_ED)
    if x_TD.shape[0] == 1 and len(blocks) == 1:
        # One token: what is gathered and added up is one row. Each launch less counts.
        return _run_one(x_TD, weights_N, weights, biases, blocks[0], kept)
    outs_ND = scratch(len(tokens_N), x_TD.shape[1], x_TD, product_dtype(up_EFD[0], WIDE_ROWS))
    inner = _Inner(weights[0], up_bias_EF, blocks, kept)
    for block in blocks:
        x_MD = x_TD.index_select(0, tokens_N[block.start : block.start + block.num_reached])
        inner_MI = inner(x_MD, block)
        for stretch in block.stretches:
            down_DI = weights[1].of(stretch)
            inner_NI = inner_MI[block.reached(stretch)].to(down_DI.dtype)
            outputs_into(outs_ND[stretch.start : stretch.reach], inner_NI, down_DI)
            if down_bias_ED is not None:
                outs_ND[stretch.start : stretch.end] += down_bias_ED[stretch.expert]
    return TokenSums(tokens_N, x_TD.shape[0]).of(outs_ND, weights_N).to(x_TD.dtype)


class _Inner:
    """The inner states of one block after the other, in the same memory."""

    def __init__(
        self, weights: Weights, bias_EF: Tensor | None, blocks: list[Block], kept: Tensor | None
    ) -> None:
        self.weights, self.bias_EF, self.kept = weights, bias_EF, kept
        up_EFD = weights.weight_EJK
        most, joined = max((block.num_reached for block in blocks), default=0), up_EFD.shape[1]
        exact = product_dtype(up_EFD[0], WIDE_ROWS)
        self.is_direct = kept is not None and kept.dtype == exact
        self.h_MF = None if self.is_direct else scratch(most, joined, up_EFD, exact)
        self.inner_MI = None if kept is None else scratch(most, joined // 2, up_EFD, exact)

    def __call__(self, x_MD: Tensor, block: Block) -> Tensor:
        """Return silu(gate x) * up x of a block's rows; what stands in further rows is anything."""
        if self.h_MF is None:
            assert self.kept is not None
            h_MF = self.kept[block.start : block.start + block.num_reached]
        else:
            h_MF = self.h_MF[: block.num_reached]
        for stretch in block.stretches:
            up_FD, at = self.weights.of(stretch), block.reached(stretch)
            outputs_into(h_MF[at], x_MD[at].to(up_FD.dtype), up_FD)
            if self.bias_EF is not None:
                h_MF[block.within(stretch)] += self.bias_EF[stretch.expert]
        if self.kept is not None and not self.is_direct:
            self.kept[block.start : block.start + block.num_rows] = h_MF[: block.num_rows]
        gate_MI, up_MI = h_MF.chunk(2, dim=-1)
        inner_MI = gate_MI if self.inner_MI is None else self.inner_MI[: block.num_reached]
        for at in pieces_of(block.num_rows, PIECE_ROWS):
            torch.ops.aten.silu.out(gate_MI[at], out=inner_MI[at]).mul_(up_MI[at])
        return inner_MI


def _run_one(
    x_1D: Tensor,
    weights_N: Tensor,
    weights: tuple[Weights, Weights],
    biases: tuple[Tensor | None, Tensor | None],
    block: Block,
    kept: Tensor | None,
) -> Tensor:
    """Return y of one token."""
    outs, exact = [], wide(x_1D.dtype)
    for stretch in block.stretches:
        up_FD, down_DI = (weight.of(stretch) for weight in weights)
        h_NF = outputs(x_1D.expand(stretch.num_rows, -1).to(up_FD.dtype), up_FD)
        if biases[0] is not None:
            h_NF += biases[0][stretch.expert]
        if kept is not None:
            kept[stretch.start : stretch.end] = h_NF
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        outs.append(outputs(functional.silu(gate_NI).mul_(up_NI), down_DI))
        if biases[1] is not None:
            outs[-1] += biases[1][stretch.expert]
    out_ND = outs[0] if len(outs) == 1 else torch.cat(outs)
    return (weights_N[None].to(exact) @ out_ND.to(exact)).to(x_1D.dtype)


class _Swiglu(torch.autograd.Function):
    """Forward keeps the states before the activation; backward computes the activation again."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_N: Tensor,
        up_EFD: Tensor,
        down_EDI: Tensor,
        up_bias_EF: Tensor | None,
        down_bias_ED: Tensor | None,
        tokens_N: Tensor,
        blocks: list[Block],
    ) -> Tensor:
        kept = scratch(len(tokens_N), up_EFD.shape[1], x_TD, up_EFD.dtype)
        y_TD = _run(x_TD, weights_N, up_EFD, down_EDI, up_bias_EF, down_bias_ED, tokens_N, blocks, kept=kept)
        ctx.save_for_backward(x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, kept)
        ctx.blocks = blocks
        return y_TD

    @staticmethod
    @once
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        back = Backward(*ctx.saved_tensors, blocks=ctx.blocks, needs=ctx.needs_input_grad)
        for block in ctx.blocks:
            back.of_block(block, dy_TD, pieces_of(block.num_rows, PIECE_ROWS))
        return *back.gradients(), None, None
