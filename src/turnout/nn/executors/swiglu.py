"""This module runs SwiGLU experts chunk by chunk, with gradients of its own.

Autograd's gradient of `weight_EFD[e]` is a tensor of the size of all experts, made once for every expert.
Here each expert's gradient is written into its place, so that the cost does not grow with E. A chunk's
intermediate results fit into a cache.

Axes: a chunk has N rows of one expert, D width, I inner size, F = 2 I.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from turnout.nn.executors.precision import product_dtype, wide

CHUNK_ROWS = 512
"""Rows of a chunk at most: enough for a product's full speed, few enough for its result to stay near."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows `start` to `end` of a plan's pairs, all of one expert; `is_first` of that expert."""

    expert: int
    start: int
    end: int
    is_first: bool


def chunks_of(offsets_E: Tensor, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Yield an expert's pairs in chunks; waits for an accelerator once, to learn the offsets."""
    start = 0
    for expert, end in enumerate(offsets_E.tolist()):
        for at in range(start, end, rows):
            yield Chunk(expert=expert, start=at, end=min(at + rows, end), is_first=at == start)
        start = end


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
    y_TD: Tensor = _Swiglu.apply(  # type: ignore[no-untyped-call]
        x_TD, weights_N, up_EFD, down_EDI, *biases, tokens_N, list(chunks_of(offsets_E))
    )
    return y_TD


class _Weights:
    """One expert's weights at a time in the precision of its products, converted once per expert."""

    def __init__(self, up_EFD: Tensor, down_EDI: Tensor) -> None:
        self.up_EFD, self.down_EDI = up_EFD, down_EDI
        self.buffers: dict[str, Tensor] = {}
        self.converted = -1

    def __getitem__(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        up_FD, down_DI = self.up_EFD[chunk.expert], self.down_EDI[chunk.expert]
        exact = product_dtype(up_FD, chunk.end - chunk.start)
        if exact == up_FD.dtype:
            return up_FD, down_DI
        if not self.buffers:
            self.buffers = {"up": up_FD.to(exact), "down": down_DI.to(exact)}
        elif self.converted != chunk.expert:
            self.buffers["up"].copy_(up_FD)
            self.buffers["down"].copy_(down_DI)
        self.converted = chunk.expert
        return self.buffers["up"], self.buffers["down"]


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
        chunks: list[Chunk],
    ) -> Tensor:
        y_TD = torch.zeros(x_TD.shape, dtype=wide(x_TD.dtype), device=x_TD.device)
        is_kept = any(ctx.needs_input_grad)
        kept: list[Tensor] = []
        weights = _Weights(up_EFD, down_EDI)
        for chunk in chunks:
            rows = slice(chunk.start, chunk.end)
            up_FD, down_DI = weights[chunk]
            h_NF = functional.linear(x_TD[tokens_N[rows]].to(up_FD.dtype), up_FD)
            if up_bias_EF is not None:
                h_NF += up_bias_EF[chunk.expert]
            if is_kept:
                kept.append(h_NF.to(up_EFD.dtype))
            gate_NI, up_NI = h_NF.chunk(2, dim=-1)
            inner_NI = functional.silu(gate_NI, inplace=not is_kept).mul_(up_NI)
            out_ND = functional.linear(inner_NI, down_DI)
            if down_bias_ED is not None:
                out_ND += down_bias_ED[chunk.expert]
            out_ND = out_ND.to(y_TD.dtype).mul_(weights_N[rows, None])
            y_TD.index_add_(0, tokens_N[rows], out_ND)
        ctx.save_for_backward(x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, *kept)
        ctx.chunks, ctx.has_up_bias = chunks, up_bias_EF is not None
        return y_TD.to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_N, up_EFD, down_EDI, down_bias_ED, tokens_N, *kept = ctx.saved_tensors
        grads = _Gradients(ctx, x_TD, weights_N, up_EFD, down_EDI, down_bias_ED)
        weights = _Weights(up_EFD, down_EDI)
        for chunk, h_NF in zip(ctx.chunks, kept, strict=True):
            rows = slice(chunk.start, chunk.end)
            up_FD, down_DI = weights[chunk]
            exact = up_FD.dtype
            tokens = tokens_N[rows]
            dy_ND = dy_TD[tokens].to(exact)
            weight_N1 = weights_N[rows, None].to(exact)
            gate_NI, up_NI = h_NF.to(exact).chunk(2, dim=-1)
            sigmoid_NI = gate_NI.sigmoid()
            silu_NI = gate_NI * sigmoid_NI
            inner_NI = silu_NI * up_NI
            dinner_NI = dy_ND @ down_DI
            grads.of_weights(chunk, dinner_NI, inner_NI, dy_ND)
            grads.of_down(chunk, dy_ND, inner_NI, weight_N1)
            if not grads.goes_on:
                continue
            dinner_NI *= weight_N1
            dh_NF = torch.empty(h_NF.shape, dtype=exact, device=h_NF.device)
            dgate_NI, dup_NI = dh_NF.chunk(2, dim=-1)
            torch.mul(dinner_NI, silu_NI, out=dup_NI)
            # d silu(z) = s + silu (1 - s) with s = sigmoid(z).
            slope_NI = sigmoid_NI + silu_NI * (1 - sigmoid_NI)
            torch.mul(dinner_NI * up_NI, slope_NI, out=dgate_NI)
            grads.of_up(chunk, dh_NF, x_TD, tokens)
            if grads.x_TD is not None:
                grads.x_TD.index_add_(0, tokens, (dh_NF @ up_FD).to(grads.x_TD.dtype))
        return grads.all(x_TD)


class _Gradients:
    """The gradients that are asked for; an expert without tokens gets zeros, the others overwrite."""

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
        busy = {chunk.expert for chunk in ctx.chunks}
        idle = [expert for expert in range(up_EFD.shape[0]) if expert not in busy]
        self.up = _Place(up_EFD, idle) if needs[2] else None
        self.down = _Place(down_EDI, idle) if needs[3] else None
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

    def of_down(self, chunk: Chunk, dy_ND: Tensor, inner_NI: Tensor, weight_N1: Tensor) -> None:
        """Add a chunk's part of the gradients of the second product."""
        if self.down is not None:
            self.down.add(chunk, dy_ND, inner_NI * weight_N1)
        if self.dbias_ED is not None:
            self.dbias_ED[chunk.expert] += (dy_ND * weight_N1).sum(0, dtype=self.dbias_ED.dtype)

    def of_up(self, chunk: Chunk, dh_NF: Tensor, x_TD: Tensor, tokens_N: Tensor) -> None:
        """Add a chunk's part of the gradients of the first product."""
        if self.up is not None:
            self.up.add(chunk, dh_NF, x_TD[tokens_N].to(dh_NF.dtype))
        if self.up_bias_EF is not None:
            self.up_bias_EF[chunk.expert] += dh_NF.sum(0, dtype=self.up_bias_EF.dtype)

    def all(self, x_TD: Tensor) -> tuple[Tensor | None, ...]:
        """Return them in the order of the arguments."""
        x = None if self.x_TD is None else self.x_TD.to(x_TD.dtype)
        up, down = (None if place is None else place.done() for place in (self.up, self.down))
        biases = (None if bias is None else bias.to(self.dtype) for bias in (self.up_bias_EF, self.dbias_ED))
        return x, self.weights_N, up, down, *biases, None, None


class _Place:
    """The gradient of stacked weights (E, J, K), written expert by expert."""

    def __init__(self, weight_EJK: Tensor, idle: list[int]) -> None:
        self.grad_EJK = torch.empty_like(weight_EJK)
        for expert in idle:
            self.grad_EJK[expert].zero_()
        # What several chunks add up to is rounded once.
        self.sum_JK: Tensor | None = None
        self.expert = -1

    def add(self, chunk: Chunk, left_NJ: Tensor, right_NK: Tensor) -> None:
        """Add left^T right to the chunk's expert."""
        grad_JK = self.grad_EJK[chunk.expert]
        if left_NJ.dtype == grad_JK.dtype and grad_JK.dtype == wide(grad_JK.dtype):
            if chunk.is_first:
                torch.mm(left_NJ.T, right_NK, out=grad_JK)
            else:
                grad_JK.addmm_(left_NJ.T, right_NK)
            return
        self._finish(chunk.expert)
        product_JK = left_NJ.T @ right_NK
        if chunk.is_first:
            self.sum_JK = product_JK.to(wide(product_JK.dtype))
        else:
            assert self.sum_JK is not None
            self.sum_JK += product_JK

    def done(self) -> Tensor:
        """Return the gradient, complete."""
        self._finish(-1)
        return self.grad_EJK

    def _finish(self, following: int) -> None:
        if following != self.expert and self.sum_JK is not None:
            self.grad_EJK[self.expert] = self.sum_JK
            self.sum_JK = None
        self.expert = following
