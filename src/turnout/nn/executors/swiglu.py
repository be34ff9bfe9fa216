"""This module runs SwiGLU experts chunk by chunk, with gradients of its own.

Autograd's gradient of `weight_EFD[e]` is a tensor of the size of all experts, made once for every expert.
Here each expert's gradient is written into its place, so that the cost does not grow with E, by one product
over all its rows of a block. A chunk's intermediate results fit into a cache; a block's rows are gathered at
once, and all outputs added up in one pass. Gradients in inputs are products over all rows of a block too,
since a library packs a weight anew for each of them.

Axes: a chunk has N rows of one expert, a block M rows of several, D width, I inner size, F = 2 I.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from turnout.nn.executors.blocks import Block, Chunk, Stretch, blocks_of
from turnout.nn.executors.forms import inputs_into, outputs, outputs_into, weights, weights_into
from turnout.nn.executors.memory import fresh_gradient, scratch
from turnout.nn.executors.precision import WIDE_ROWS, product_dtype, wide
from turnout.nn.executors.sums import TokenSums


def run_swiglu(
    x_TD: Tensor,
    weights_N: Tensor,
    up_EFD: Tensor,
    down_EDI: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    *,
    tokens_N: Tensor,
    offsets_E: Tensor,
) -> Tensor:
    """Return y_TD, the sum over each token's pairs of weight * down(silu(gate x) * up x).

    Gradients flow to everything that is not whole numbers, once: there is no second derivative.
    """
    parts = (x_TD, weights_N, up_EFD, down_EDI, *biases)
    blocks = blocks_of(offsets_E)
    if not (torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)):
        return _run(*parts, tokens_N, blocks, kept=None)
    y_TD: Tensor = _Swiglu.apply(*parts, tokens_N, blocks)  # type: ignore[no-untyped-call]
    return y_TD


class _Weights:
    """One expert's weights at a time in the precision of its products, converted once per expert."""

    def __init__(self, up_EFD: Tensor, down_EDI: Tensor) -> None:
        self.up_EFD, self.down_EDI, self.dtype = up_EFD, down_EDI, up_EFD.dtype
        self.buffers: dict[str, Tensor] = {}
        self.converted = -1

    def __getitem__(self, part: Chunk | Stretch) -> tuple[Tensor, Tensor]:
        up_FD, down_DI = self.up_EFD.select(0, part.expert), self.down_EDI.select(0, part.expert)
        exact = product_dtype(up_FD, part.num_rows)
        if exact == up_FD.dtype:
            return up_FD, down_DI
        if not self.buffers:
            self.buffers = {"up": up_FD.to(exact), "down": down_DI.to(exact)}
        elif self.converted != part.expert:
            self.buffers["up"].copy_(up_FD)
            self.buffers["down"].copy_(down_DI)
        self.converted = part.expert
        return self.buffers["up"], self.buffers["down"]


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
) -> Tensor:
    """Return y_TD; write the states before each activation into `kept` (N, F), unless it is None."""
    experts, biases = _Weights(up_EFD, down_EDI), (up_bias_EF, down_bias_ED)
    if x_TD.shape[0] == 1 and len(blocks) == 1:
        # One token: what is gathered and added up is one row. Each launch less counts.
        return _run_one(x_TD, weights_N, experts, biases, blocks[0], kept)
    outs_ND = scratch(len(tokens_N), x_TD.shape[1], x_TD, product_dtype(up_EFD[0], WIDE_ROWS))
    for block in blocks:
        x_MD = x_TD.index_select(0, tokens_N[block.rows])
        for stretch in block.stretches:
            for chunk in stretch.chunks:
                inner_NI, down_DI = _inner(x_MD[block.within(chunk)], chunk, experts, up_bias_EF, kept)
                out_ND = outs_ND[chunk.start : chunk.end]
                outputs_into(out_ND, inner_NI, down_DI)
                if down_bias_ED is not None:
                    out_ND += down_bias_ED[chunk.expert]
    return TokenSums(tokens_N, x_TD.shape[0]).of(outs_ND, weights_N).to(x_TD.dtype)


def _run_one(
    x_1D: Tensor,
    weights_N: Tensor,
    experts: _Weights,
    biases: tuple[Tensor | None, Tensor | None],
    block: Block,
    kept: Tensor | None,
) -> Tensor:
    """Return y of one token."""
    outs, exact = [], wide(x_1D.dtype)
    for chunk in (chunk for stretch in block.stretches for chunk in stretch.chunks):
        inner_NI, down_DI = _inner(x_1D.expand(chunk.num_rows, -1), chunk, experts, biases[0], kept)
        outs.append(outputs(inner_NI, down_DI))
        if biases[1] is not None:
            outs[-1] += biases[1][chunk.expert]
    return (weights_N[None].to(exact) @ _joined(outs).to(exact)).to(x_1D.dtype)


def _inner(
    x_ND: Tensor, chunk: Chunk, experts: _Weights, up_bias_EF: Tensor | None, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return silu(gate x) * up x of a chunk, and the weight of what comes next."""
    up_FD, down_DI = experts[chunk]
    if kept is not None and kept.dtype == up_FD.dtype:
        h_NF = kept[chunk.start : chunk.end]
        outputs_into(h_NF, x_ND.to(up_FD.dtype), up_FD)
    else:
        h_NF = outputs(x_ND.to(up_FD.dtype), up_FD)
    if up_bias_EF is not None:
        h_NF += up_bias_EF[chunk.expert]
    if kept is not None and kept.dtype != up_FD.dtype:
        kept[chunk.start : chunk.end] = h_NF
    gate_NI, up_NI = h_NF.chunk(2, dim=-1)
    return functional.silu(gate_NI, inplace=kept is None).mul_(up_NI), down_DI


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
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, kept = ctx.saved_tensors
        grads = _Gradients(ctx, x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N)
        experts = _Weights(up_EFD, down_EDI)
        for block in ctx.blocks:
            rows = _Rows(block, x_TD, dy_TD, weights_N, tokens_N, experts)
            for stretch in block.stretches:
                at, (up_FD, down_DI) = block.within(stretch), experts[stretch]
                inputs_into(rows.dinner_MI[at], rows.dy_MD[at].to(down_DI.dtype), down_DI)
                for chunk in stretch.chunks:
                    _chunk_back(rows, chunk, kept[chunk.start : chunk.end], grads)
                grads.of_stretch(stretch, rows, at, up_FD)
        return grads.all(x_TD)


def _chunk_back(rows: _Rows, chunk: Chunk, state_NF: Tensor, grads: _Gradients) -> None:
    """Go back through one chunk: write its rows of what the products of its expert's gradients read."""
    at = rows.block.within(chunk)
    dy_ND, weight_N1, dinner_NI = rows.dy_MD[at], rows.weight_M1[at], rows.dinner_MI[at]
    gate_NI, up_NI = state_NF.to(dinner_NI.dtype).chunk(2, dim=-1)
    silu_NI = functional.silu(gate_NI)
    inner_NI = torch.mul(silu_NI, up_NI, out=rows.inner_MI[at])
    grads.of_weights(chunk, dinner_NI, inner_NI, dy_ND)
    # The gradient of the second product's weight is dy^T (weight * inner).
    inner_NI *= weight_N1
    if not grads.goes_on:
        return
    dinner_NI *= weight_N1
    dh_NF = rows.dh_MF[at]
    dgate_NI, dup_NI = dh_NF.chunk(2, dim=-1)
    torch.mul(dinner_NI, silu_NI, out=dup_NI)
    torch.ops.aten.silu_backward.grad_input(dinner_NI.mul_(up_NI), gate_NI, grad_input=dgate_NI)


class _Rows:
    """What a block's chunks read in the backward pass, gathered at once, and what they write."""

    def __init__(
        self,
        block: Block,
        x_TD: Tensor,
        dy_TD: Tensor,
        weights_N: Tensor,
        tokens_N: Tensor,
        experts: _Weights,
    ) -> None:
        self.block = block
        tokens_M = tokens_N[block.rows]
        self.x_MD, self.dy_MD = (source.index_select(0, tokens_M) for source in (x_TD, dy_TD))
        self.weight_M1 = weights_N[block.rows, None]
        exact = product_dtype(experts.up_EFD[0], WIDE_ROWS)
        inner = experts.down_EDI.shape[2]
        self.inner_MI = scratch(len(tokens_M), inner, x_TD, exact)
        self.dinner_MI = scratch(len(tokens_M), inner, x_TD, exact)
        self.dh_MF = scratch(len(tokens_M), 2 * inner, x_TD, exact)


class _Gradients:
    """The gradients that are asked for; an expert without tokens keeps zeros, the others overwrite."""

    def __init__(
        self,
        ctx: Any,
        x_TD: Tensor,
        weights_N: Tensor,
        up_EFD: Tensor,
        down_EDI: Tensor,
        down_bias_ED: Tensor | None,
        tokens_N: Tensor,
    ) -> None:
        needs = ctx.needs_input_grad
        self.down_bias_ED, self.dtype = down_bias_ED, up_EFD.dtype
        self.sums, self.dx_ND = TokenSums(tokens_N, x_TD.shape[0]), None
        if needs[0]:
            exact = product_dtype(up_EFD[0], WIDE_ROWS)
            self.dx_ND = scratch(len(tokens_N), x_TD.shape[1], x_TD, exact)
        self.weights_N = torch.empty_like(weights_N) if needs[1] else None
        busy = {stretch.expert for block in ctx.blocks for stretch in block.stretches}
        self.up = _Place(up_EFD, busy) if needs[2] else None
        self.down = _Place(down_EDI, busy) if needs[3] else None
        exact = wide(up_EFD.dtype)
        self.up_bias_EF = torch.zeros_like(up_EFD[:, :, 0], dtype=exact) if needs[4] else None
        self.dbias_ED = torch.zeros_like(down_EDI[:, :, 0], dtype=exact) if needs[5] else None
        self.goes_on = needs[0] or needs[2] or needs[4]

    def of_weights(self, chunk: Chunk, dinner_NI: Tensor, inner_NI: Tensor, dy_ND: Tensor) -> None:
        """<dy, out> = <dy down, inner> + <dy, bias>, so that `out` need not be kept."""
        if self.weights_N is None:
            return
        dw_N = (dinner_NI * inner_NI).sum(-1, dtype=wide(dy_ND.dtype))
        if self.down_bias_ED is not None:
            dw_N += dy_ND.to(dw_N.dtype) @ self.down_bias_ED[chunk.expert].to(dw_N.dtype)
        self.weights_N[chunk.start : chunk.end] = dw_N

    def of_stretch(self, stretch: Stretch, rows: _Rows, at: slice, up_FD: Tensor) -> None:
        """Write the gradients in a stretch's inputs, and its part of those of weights and biases."""
        dy_ND, dh_NF = rows.dy_MD[at], rows.dh_MF[at]
        if self.dx_ND is not None:
            inputs_into(self.dx_ND[stretch.start : stretch.end], dh_NF.to(up_FD.dtype), up_FD)
        if self.down is not None:
            self.down.add(stretch, dy_ND.to(dh_NF.dtype), rows.inner_MI[at])
        if self.up is not None:
            self.up.add(stretch, dh_NF, rows.x_MD[at].to(dh_NF.dtype))
        if self.dbias_ED is not None:
            exact = self.dbias_ED.dtype
            self.dbias_ED[stretch.expert] += rows.weight_M1[at, 0].to(exact) @ dy_ND.to(exact)
        if self.up_bias_EF is not None:
            self.up_bias_EF[stretch.expert] += dh_NF.sum(0, dtype=self.up_bias_EF.dtype)

    def all(self, x_TD: Tensor) -> tuple[Tensor | None, ...]:
        """Return them in the order of the arguments."""
        x = None if self.dx_ND is None else self.sums.of(self.dx_ND).to(x_TD.dtype)
        up, down = (None if place is None else place.grad_EJK for place in (self.up, self.down))
        biases = (None if bias is None else bias.to(self.dtype) for bias in (self.up_bias_EF, self.dbias_ED))
        return x, self.weights_N, up, down, *biases, None, None


class _Place:
    """The gradient of stacked weights (E, J, K), written expert by expert."""

    def __init__(self, weight_EJK: Tensor, busy: set[int]) -> None:
        self.grad_EJK = fresh_gradient(weight_EJK, busy)
        # What several stretches add up to is rounded once.
        self.sum_JK: Tensor | None = None

    def add(self, stretch: Stretch, left_NJ: Tensor, right_NK: Tensor) -> None:
        """Add left^T right to the stretch's expert."""
        grad_JK = self.grad_EJK.select(0, stretch.expert)
        if stretch.is_first and stretch.is_last:
            weights_into(grad_JK, left_NJ, right_NK)
            return
        product_JK = weights(left_NJ, right_NK)
        if self.sum_JK is None:
            self.sum_JK = product_JK.to(wide(product_JK.dtype))
        else:
            self.sum_JK += product_JK
        if stretch.is_last:
            grad_JK.copy_(self.sum_JK)
            self.sum_JK = None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
