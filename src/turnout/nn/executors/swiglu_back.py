"""This module goes back through SwiGLU experts, block by block.

Autograd's gradient of `weight_EFD[e]` is a tensor of the size of all experts, made once for every expert.
Here each expert's gradient is written into its place, so that the cost does not grow with E, by one product
over all its rows of a block. Gradients in inputs are products over these rows too, since a library packs a
weight anew for each of them.

A pair's weight is multiplied into its row of the output's gradient, once, where everything that comes after
wants it. Only the gradient in the weight itself does not: there it is divided out again. So that this is
exact, a weight that is 0 or nearly is left for later, w = scale * rest, and so are all in fp16, whose range
is too small.

Axes: a block has M rows of several experts, N pairs, D width, I inner size, F = 2 I.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from turnout.nn.executors.blocks import Block, Stretch
from turnout.nn.executors.forms import inputs_into, weights, weights_into
from turnout.nn.executors.memory import fresh_gradient, scratch
from turnout.nn.executors.precision import WIDE_ROWS, product_dtype, wide
from turnout.nn.executors.sums import TokenSums

LEAST_RANGE = 1e-30
"""A precision whose least normal number is larger has too small a range to multiply and divide in."""


class Weights:
    """One expert's weight at a time in the precision of its products, converted once per expert."""

    def __init__(self, weight_EJK: Tensor) -> None:
        self.weight_EJK = weight_EJK
        self.buffer_JK: Tensor | None = None
        self.converted = -1

    def of(self, stretch: Stretch) -> Tensor:
        """Return the weight of a stretch's expert."""
        weight_JK = self.weight_EJK.select(0, stretch.expert)
        exact = product_dtype(weight_JK, stretch.num_rows)
        if exact == weight_JK.dtype:
            return weight_JK
        if self.buffer_JK is None:
            self.buffer_JK = weight_JK.to(exact)
        elif self.converted != stretch.expert:
            self.buffer_JK.copy_(weight_JK)
        self.converted = stretch.expert
        return self.buffer_JK


def split(weights_N: Tensor, exact: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """Return scale_N and rest_N, whose product is the weights; None where all are 1.

    A scale can be multiplied with numbers of a precision and divided out again.
    """
    least = torch.finfo(exact).tiny
    if least > LEAST_RANGE:
        return None, weights_N
    is_small_N = weights_N.abs() < least**0.5
    if not bool(is_small_N.any()):
        return weights_N, None
    return weights_N.masked_fill(is_small_N, 1.0), weights_N.masked_fill(~is_small_N, 1.0)


class Backward:
    """The gradients that are asked for; an expert without tokens keeps zeros, the others overwrite.

    `needs` says of x, weights, up, down and both biases whether their gradient is asked for.
    """

    def __init__(
        self,
        x_TD: Tensor,
        weights_N: Tensor,
        up_EFD: Tensor,
        down_EDI: Tensor,
        down_bias_ED: Tensor | None,
        tokens_N: Tensor,
        kept_NF: Tensor,
        *,
        blocks: Sequence[Block],
        needs: Sequence[bool],
    ) -> None:
        self.x_TD, self.down_bias_ED = x_TD, down_bias_ED
        self.tokens_N, self.kept_NF = tokens_N, kept_NF
        self.up_weights, self.down_weights = Weights(up_EFD), Weights(down_EDI)
        exact = self.exact = product_dtype(up_EFD[0], WIDE_ROWS)
        self.scale_N, self.rest_N = split(weights_N, exact) if needs[1] else (weights_N, None)
        summed = wide(exact)
        self.dweights_N = torch.empty_like(weights_N, dtype=summed) if needs[1] else None
        width, inner = down_EDI.shape[1:]
        self.dx_ND = scratch(len(tokens_N), width, x_TD, exact) if needs[0] else None
        busy = {stretch.expert for block in blocks for stretch in block.stretches}
        self.up = Place(up_EFD, busy) if needs[2] else None
        self.down = Place(down_EDI, busy) if needs[3] else None
        self.dtypes = weights_N.dtype, up_EFD.dtype
        self.dup_bias_EF = torch.zeros_like(up_EFD[:, :, 0], dtype=summed) if needs[4] else None
        self.ddown_bias_ED = torch.zeros_like(down_EDI[:, :, 0], dtype=summed) if needs[5] else None
        self.goes_on = needs[0] or needs[2] or needs[4]
        most = max((block.num_reached for block in blocks), default=0)
        self.inner_MI, self.dinner_MI = (scratch(most, inner, x_TD, exact) for _ in range(2))
        self.dh_MF = scratch(most, 2 * inner, x_TD, exact) if self.goes_on else None

    def of_block(self, block: Block, dy_TD: Tensor, pieces: Sequence[slice]) -> None:
        """Go back through one block; blocks have to come in their order."""
        tokens_M = self.tokens_N[block.start : block.start + block.num_reached]
        rows = slice(block.start, block.start + len(tokens_M))
        dy_MD = dy_TD.index_select(0, tokens_M).to(self.exact)
        if self.scale_N is not None:
            dy_MD *= self.scale_N[rows, None]
        for stretch in block.stretches:
            down_DI, at = self.down_weights.of(stretch), block.reached(stretch)
            inputs_into(self.dinner_MI[at], dy_MD[at].to(down_DI.dtype), down_DI)
        for at in pieces:
            self._of_piece(block, at, dy_MD)
        x_MD = self.x_TD.index_select(0, tokens_M) if self.up is not None else None
        for stretch in block.stretches:
            self._of_stretch(stretch, block, dy_MD, x_MD)

    def _of_piece(self, block: Block, at: slice, dy_MD: Tensor) -> None:
        """Go back through the activations of some rows of a block."""
        rows = slice(block.start + at.start, block.start + at.stop)
        dinner_NI, inner_NI = self.dinner_MI[at], self.inner_MI[at]
        gate_NI, up_NI = self.kept_NF[rows].to(self.exact).chunk(2, dim=-1)
        silu_NI = functional.silu(gate_NI)
        torch.mul(silu_NI, up_NI, out=inner_NI)
        if self.dweights_N is not None:
            dw_N = (dinner_NI * inner_NI).sum(-1, dtype=self.dweights_N.dtype)
            self.dweights_N[rows] = dw_N if self.scale_N is None else dw_N / self.scale_N[rows]
        if self.rest_N is not None:
            # The gradient of the second product's weight is dy^T (weight * inner).
            inner_NI *= self.rest_N[rows, None]
            dinner_NI *= self.rest_N[rows, None]
        if self.dh_MF is not None:
            dgate_NI, dup_NI = self.dh_MF[at].chunk(2, dim=-1)
            torch.mul(dinner_NI, silu_NI, out=dup_NI)
            torch.ops.aten.silu_backward.grad_input(dinner_NI.mul_(up_NI), gate_NI, grad_input=dgate_NI)

    def _of_stretch(self, stretch: Stretch, block: Block, dy_MD: Tensor, x_MD: Tensor | None) -> None:
        """Write the gradients in a stretch's inputs, and its part of those of weights and biases."""
        at, rows = block.within(stretch), slice(stretch.start, stretch.end)
        dy_ND = dy_MD[at]
        if self.down is not None:
            self.down.add(stretch, dy_ND, self.inner_MI[at])
        if self.down_bias_ED is not None:
            self._of_down_bias(stretch.expert, rows, dy_ND)
        if self.dh_MF is None:
            return
        if self.dx_ND is not None:
            up_FD, reached = self.up_weights.of(stretch), block.reached(stretch)
            dh_NF = self.dh_MF[reached].to(up_FD.dtype)
            inputs_into(self.dx_ND[stretch.start : stretch.reach], dh_NF, up_FD)
        if self.up is not None:
            assert x_MD is not None
            self.up.add(stretch, self.dh_MF[at], x_MD[at].to(self.exact))
        if self.dup_bias_EF is not None:
            self.dup_bias_EF[stretch.expert] += self.dh_MF[at].sum(0, dtype=self.dup_bias_EF.dtype)

    def _of_down_bias(self, expert: int, rows: slice, dy_ND: Tensor) -> None:
        """The bias is a part of what a pair's weight is multiplied with: <dy, out> = ... + <dy, bias>."""
        assert self.down_bias_ED is not None
        summed = wide(self.exact)
        if self.dweights_N is not None:
            dw_N = dy_ND.to(summed) @ self.down_bias_ED[expert].to(summed)
            self.dweights_N[rows] += dw_N if self.scale_N is None else dw_N / self.scale_N[rows]
        if self.ddown_bias_ED is not None and self.rest_N is None:
            self.ddown_bias_ED[expert] += dy_ND.sum(0, dtype=summed)
        elif self.ddown_bias_ED is not None and self.rest_N is not None:
            self.ddown_bias_ED[expert] += self.rest_N[rows].to(summed) @ dy_ND.to(summed)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Return them in the order of `needs`."""
        x = None
        if self.dx_ND is not None:
            x = TokenSums(self.tokens_N, self.x_TD.shape[0]).of(self.dx_ND).to(self.x_TD.dtype)
        up, down = (None if place is None else place.grad_EJK for place in (self.up, self.down))
        dtypes = (self.dtypes[0], *(self.dtypes[1],) * 2)
        summed = zip((self.dweights_N, self.dup_bias_EF, self.ddown_bias_ED), dtypes, strict=True)
        weights_N, *biases = (None if part is None else part.to(dtype) for part, dtype in summed)
        return x, weights_N, up, down, *biases


class Place:
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
