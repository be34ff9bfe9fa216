"""This module runs SwiGLU experts chunk by chunk, with gradients of its own.

Autograd's gradient of `weight_EFD[e]` is a tensor of the size of all experts, made once for every expert.
Here each expert's gradient is written into its place, so that the cost does not grow with E. A chunk's
intermediate results fit into a cache; what is gathered and added up is so for a block of chunks at once.

Axes: a chunk has N rows of one expert, D width, I inner size, F = 2 I.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from turnout.nn.executors.blocks import Block, Chunk, blocks_of
from turnout.nn.executors.forms import inputs, outputs, weights, weights_into
from turnout.nn.executors.memory import fresh_gradient
from turnout.nn.executors.precision import product_dtype, wide


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

    def __getitem__(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        up_FD, down_DI = self.up_EFD.select(0, chunk.expert), self.down_EDI.select(0, chunk.expert)
        exact = product_dtype(up_FD, chunk.num_rows)
        if exact == up_FD.dtype:
            return up_FD, down_DI
        if not self.buffers:
            self.buffers = {"up": up_FD.to(exact), "down": down_DI.to(exact)}
        elif self.converted != chunk.expert:
            self.buffers["up"].copy_(up_FD)
            self.buffers["down"].copy_(down_DI)
        self.converted = chunk.expert
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
    kept: list[Tensor] | None,
) -> Tensor:
    """Return y_TD; append the states before each activation to `kept`, unless it is None."""
    experts, biases = _Weights(up_EFD, down_EDI), (up_bias_EF, down_bias_ED)
    exact = wide(x_TD.dtype)
    if x_TD.shape[0] == 1 and len(blocks) == 1:
        # One token: what is gathered and added up is one row. Each launch less counts.
        outs = [
            _outputs(x_TD.expand(chunk.num_rows, -1), chunk, experts, biases, kept)
            for chunk in blocks[0].chunks
        ]
        return (weights_N[None].to(exact) @ _joined(outs).to(exact)).to(x_TD.dtype)
    y_TD = torch.zeros(x_TD.shape, dtype=exact, device=x_TD.device)
    for block in blocks:
        tokens = tokens_N[block.rows]
        xs = x_TD.index_select(0, tokens).split_with_sizes(block.sizes)
        outs = [
            _outputs(x_ND, chunk, experts, biases, kept) for x_ND, chunk in zip(xs, block.chunks, strict=True)
        ]
        weighted_ND = _joined(outs).to(exact).mul_(weights_N[block.rows, None])
        y_TD.index_add_(0, tokens, weighted_ND)
    return y_TD.to(x_TD.dtype)


def _outputs(
    x_ND: Tensor,
    chunk: Chunk,
    experts: _Weights,
    biases: tuple[Tensor | None, Tensor | None],
    kept: list[Tensor] | None,
) -> Tensor:
    """Return what a chunk's expert gives, before it is weighted."""
    up_FD, down_DI = experts[chunk]
    up_bias_EF, down_bias_ED = biases
    h_NF = outputs(x_ND.to(up_FD.dtype), up_FD)
    if up_bias_EF is not None:
        h_NF += up_bias_EF[chunk.expert]
    if kept is not None:
        kept.append(h_NF.to(experts.dtype))
    gate_NI, up_NI = h_NF.chunk(2, dim=-1)
    inner_NI = functional.silu(gate_NI, inplace=kept is None).mul_(up_NI)
    out_ND = outputs(inner_NI, down_DI)
    if down_bias_ED is not None:
        out_ND += down_bias_ED[chunk.expert]
    return out_ND


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
        kept: list[Tensor] = []
        y_TD = _run(x_TD, weights_N, up_EFD, down_EDI, up_bias_EF, down_bias_ED, tokens_N, blocks, kept=kept)
        ctx.save_for_backward(x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, *kept)
        ctx.blocks = blocks
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, *kept = ctx.saved_tensors
        grads = _Gradients(ctx, x_TD, weights_N, up_EFD, down_EDI, down_bias_ED)
        experts, states = _Weights(up_EFD, down_EDI), iter(kept)
        for block in ctx.blocks:
            rows = _Rows(block, x_TD, dy_TD, weights_N, tokens_N, up_EFD.dtype)
            for chunk, x_ND, dy_ND, wdy_ND, weight_N1 in rows:
                up_FD, down_DI = experts[chunk]
                exact = up_FD.dtype
                gate_NI, up_NI = next(states).to(exact).chunk(2, dim=-1)
                silu_NI = functional.silu(gate_NI)
                inner_NI = silu_NI * up_NI
                dinner_NI = inputs(dy_ND.to(exact), down_DI)
                grads.of_weights(chunk, dinner_NI, inner_NI, dy_ND)
                grads.of_down(chunk, wdy_ND.to(exact), inner_NI)
                if not grads.goes_on:
                    continue
                dinner_NI *= weight_N1.to(exact)
                dh_NF = torch.empty(len(x_ND), 2 * up_NI.shape[1], dtype=exact, device=x_ND.device)
                dgate_NI, dup_NI = dh_NF.chunk(2, dim=-1)
                torch.mul(dinner_NI, silu_NI, out=dup_NI)
                torch.ops.aten.silu_backward.grad_input(dinner_NI.mul_(up_NI), gate_NI, grad_input=dgate_NI)
                grads.of_up(chunk, dh_NF, x_ND)
                if grads.x_TD is not None:
                    rows.dx.append(inputs(dh_NF, up_FD))
            grads.of_block(block, rows)
        return grads.all(x_TD)


class _Rows:
    """What a block's chunks read in the backward pass, gathered at once, and the gradients that they give."""

    def __init__(
        self,
        block: Block,
        x_TD: Tensor,
        dy_TD: Tensor,
        weights_N: Tensor,
        tokens_N: Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.block, self.tokens = block, tokens_N[block.rows]
        self.x_ND, self.dy_ND = (source.index_select(0, self.tokens) for source in (x_TD, dy_TD))
        self.weight_N1 = weights_N[block.rows, None].to(wide(weights_N.dtype))
        # The gradient in an expert's output, rounded where the forward pass widened it.
        self.wdy_ND = (self.dy_ND * self.weight_N1).to(dtype)
        self.dx: list[Tensor] = []

    def __iter__(self) -> Any:
        sizes = self.block.sizes
        parts = (
            part.split_with_sizes(sizes) for part in (self.x_ND, self.dy_ND, self.wdy_ND, self.weight_N1)
        )
        return zip(self.block.chunks, *parts, strict=True)


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
    ) -> None:
        needs = ctx.needs_input_grad
        self.down_bias_ED = down_bias_ED
        self.x_TD = torch.zeros(x_TD.shape, dtype=wide(x_TD.dtype), device=x_TD.device) if needs[0] else None
        self.weights_N = torch.empty_like(weights_N) if needs[1] else None
        busy = {chunk.expert for block in ctx.blocks for chunk in block.chunks}
        self.up = _Place(up_EFD, busy) if needs[2] else None
        self.down = _Place(down_EDI, busy) if needs[3] else None
        exact = wide(up_EFD.dtype)
        self.up_bias_EF = torch.zeros_like(up_EFD[:, :, 0], dtype=exact) if needs[4] else None
        self.dbias_ED = torch.zeros_like(down_EDI[:, :, 0], dtype=exact) if needs[5] else None
        self.dtype = up_EFD.dtype
        self.goes_on = needs[0] or needs[2] or needs[4]

    def of_weights(self, chunk: Chunk, dinner_NI: Tensor, inner_NI: Tensor, dy_ND: Tensor) -> None:
        """<dy, out> = <dy down, inner> + <dy, bias>, so that `out` need not be kept."""
        if self.weights_N is None:
            return
        dw_N = (dinner_NI * inner_NI).sum(-1, dtype=wide(dy_ND.dtype))
        if self.down_bias_ED is not None:
            dw_N += dy_ND.to(dw_N.dtype) @ self.down_bias_ED[chunk.expert].to(dw_N.dtype)
        self.weights_N[chunk.start : chunk.end] = dw_N

    def of_down(self, chunk: Chunk, wdy_ND: Tensor, inner_NI: Tensor) -> None:
        """Add a chunk's part of the gradients of the second product."""
        if self.down is not None:
            self.down.add(chunk, wdy_ND, inner_NI)
        if self.dbias_ED is not None:
            self.dbias_ED[chunk.expert] += wdy_ND.sum(0, dtype=self.dbias_ED.dtype)

    def of_up(self, chunk: Chunk, dh_NF: Tensor, x_ND: Tensor) -> None:
        """Add a chunk's part of the gradients of the first product."""
        if self.up is not None:
            self.up.add(chunk, dh_NF, x_ND.to(dh_NF.dtype))
        if self.up_bias_EF is not None:
            self.up_bias_EF[chunk.expert] += dh_NF.sum(0, dtype=self.up_bias_EF.dtype)

    def of_block(self, block: Block, rows: _Rows) -> None:
        """Add a block's part of the gradient in the states."""
        if self.x_TD is not None:
            self.x_TD.index_add_(0, rows.tokens, _joined(rows.dx).to(self.x_TD.dtype))

    def all(self, x_TD: Tensor) -> tuple[Tensor | None, ...]:
        """Return them in the order of the arguments."""
        x = None if self.x_TD is None else self.x_TD.to(x_TD.dtype)
        up, down = (None if place is None else place.grad_EJK for place in (self.up, self.down))
        biases = (None if bias is None else bias.to(self.dtype) for bias in (self.up_bias_EF, self.dbias_ED))
        return x, self.weights_N, up, down, *biases, None, None


class _Place:
    """The gradient of stacked weights (E, J, K), written expert by expert."""

    def __init__(self, weight_EJK: Tensor, busy: set[int]) -> None:
        self.grad_EJK = fresh_gradient(weight_EJK, busy)
        # What several chunks add up to is rounded once.
        self.sum_JK: Tensor | None = None

    def add(self, chunk: Chunk, left_NJ: Tensor, right_NK: Tensor) -> None:
        """Add left^T right to the chunk's expert."""
        grad_JK = self.grad_EJK.select(0, chunk.expert)
        if chunk.is_first and chunk.is_last:
            weights_into(grad_JK, left_NJ, right_NK)
            return
        product_JK = weights(left_NJ, right_NK)
        if self.sum_JK is None:
            self.sum_JK = product_JK.to(wide(product_JK.dtype))
        else:
            self.sum_JK += product_JK
        if chunk.is_last:
            grad_JK.copy_(self.sum_JK)
            self.sum_JK = None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
