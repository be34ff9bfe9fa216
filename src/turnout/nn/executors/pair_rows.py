"""This module moves rows around experts' products: states to pairs, biases, and outputs back to their tokens.

The gradients are written down: autograd's own go by copies of all pairs in single precision, and by additions
to memory that wait for each other. Here is how torch does it; `triton_pair_rows` does the same by kernels.

Axes: T tokens, N pairs in the order of experts, E experts, D width, J outputs of a product, M rows
of a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from turnout.nn.executors.blocks import pieces_of, segments_of
from turnout.nn.executors.once import once
from turnout.nn.executors.precision import wide
from turnout.nn.executors.sums import FEW_PAIRS, TokenSums
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_order import SHORT
from turnout.nn.probe import Probe
from turnout.nn.uncompiled import untraced

PIECES = {"cpu": 512}
"""So many rows are in single precision at a time: few enough that the next pass finds them near."""

PIECE = 8192
"""The same where `PIECES` says nothing: enough to fill an accelerator."""

KERNELS_ON = ("cuda",)
"""Where kernels move the rows of more than `FEW_PAIRS` pairs, if their probe works."""


class PairRows:
    """Moves rows by torch's operations; the slow twin of `triton_pair_rows.KernelRows`.

    Sums and weighting are of single precision at least, and rounded once.
    """

    def __init__(self, plan: SparsePlan) -> None:
        self.plan, self.sums = plan, TokenSums(plan.tokens_N, plan.num_tokens)

    def gathered(self, x_TD: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (N, D): each pair's states, in a precision; gradients flow."""
        if is_learning(x_TD):
            return _gathered(x_TD, self, dtype)
        return self.gather(x_TD.to(dtype))

    def biased(self, h_NJ: Tensor, bias_EJ: Tensor | None) -> Tensor:
        """Return the rows with their experts' biases added, if there are any; gradients flow."""
        if bias_EJ is None:
            return h_NJ
        return _biased(h_NJ, bias_EJ, self) if is_learning(h_NJ, bias_EJ) else self.add_bias(h_NJ, bias_EJ)

    def combined(self, out_ND: Tensor, bias_ED: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return (T, D): the sum of each token's outputs, biased and weighted; gradients flow."""
        weights_N = self.plan.weights_N
        if is_learning(out_ND, weights_N, bias_ED):
            return _combined(out_ND, weights_N, bias_ED, self, dtype)
        return self.combine(out_ND, weights_N, bias_ED, dtype)

    def gather(self, x_TD: Tensor) -> Tensor:
        """Return (N, D): the row of each pair's token."""
        return x_TD.index_select(0, self.plan.tokens_N)

    def add_up(self, rows_ND: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (T, D): the sum of each token's rows, 0 without any."""
        return self.sums.of(rows_ND).to(dtype)

    def combine(
        self, out_ND: Tensor, weights_N: Tensor, bias_ED: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Return (T, D): the sum of each token's rows with their experts' biases, weighted."""
        if bias_ED is not None:
            out_ND = self.add_bias(out_ND, bias_ED)
        if len(out_ND) <= SHORT:
            return self.sums.added(out_ND, weights_N).to(dtype)
        return self.sums.of(out_ND, weights_N).to(dtype)

    def spread(
        self,
        dy_TD: Tensor,
        out_ND: Tensor,
        weights_N: Tensor,
        bias_ED: Tensor | None,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return what `combine` hands back to out_ND and to weights_N; None for what is not needed."""
        exact = wide(torch.promote_types(dy_TD.dtype, out_ND.dtype))
        tokens_N, experts_N = self.plan.tokens_N, self.plan.experts_N
        dout_ND = torch.empty_like(out_ND) if needs[0] else None
        dweights_N = out_ND.new_empty(len(out_ND), dtype=exact) if needs[1] else None
        for at in pieces_of(len(out_ND), PIECES.get(out_ND.device.type, PIECE)):
            dy_MD = dy_TD.index_select(0, tokens_N[at]).to(exact)
            if dweights_N is not None:
                product_MD = dy_MD * out_ND[at]
                if bias_ED is not None:
                    product_MD += dy_MD * bias_ED.index_select(0, experts_N[at])
                torch.sum(product_MD, dim=1, out=dweights_N[at])
            if dout_ND is not None:
                dout_ND[at] = dy_MD.mul_(weights_N[at, None])
        return dout_ND, dweights_N

    def add_bias(self, h_NJ: Tensor, bias_EJ: Tensor) -> Tensor:
        """Return the rows with their experts' biases added, in the precision of the rows."""
        return h_NJ + bias_EJ.to(h_NJ.dtype).index_select(0, self.plan.experts_N)

    def by_expert(self, rows_NJ: Tensor) -> Tensor:
        """Return (E, J): the sum of each expert's rows, in single precision at least."""
        exact, experts_N = wide(rows_NJ.dtype), self.plan.experts_N
        sums_EJ = rows_NJ.new_zeros(self.plan.num_experts, rows_NJ.shape[1], dtype=exact)
        if rows_NJ.device.type != "cpu":
            # Sorted within, so that no two additions to a number wait for each other.
            return sums_EJ.index_put_((experts_N,), rows_NJ.to(exact), accumulate=True)
        for segment in segments_of(self.plan.offsets_E):
            torch.sum(rows_NJ[segment.start : segment.end], 0, dtype=exact, out=sums_EJ[segment.expert])
        return sums_EJ


def pair_rows(plan: SparsePlan, x_TD: Tensor, stack: Stack) -> PairRows:
    """Return what moves the rows of a plan: kernels for many pairs where they work, torch elsewhere."""
    device, dtypes = x_TD.device, (x_TD.dtype, stack.up_EFD.dtype)
    is_many = plan.num_pairs > FEW_PAIRS and device.type in KERNELS_ON
    # The kernels add up in single precision.
    if is_many and torch.float64 not in dtypes and kernels_work(device, dtypes[1]):
        from turnout.nn.executors.triton_pair_rows import KernelRows

        return KernelRows(plan)
    return PairRows(plan)


@torch.inference_mode()
def _is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's kernels are there and move rows as torch does on a processor."""
    from turnout.nn.executors.triton_pair_rows import KernelRows

    random = torch.Generator().manual_seed(0)
    is_pair_TE = torch.rand(70, 5, generator=random) < 0.4
    weights_TE = torch.rand(70, 5, generator=random) * is_pair_TE
    dy_TD, bias_ED = (torch.randn(rows, 72, generator=random).to(dtype) for rows in (70, 5))
    found: list[list[Tensor | None]] = []
    for kind, place in ((PairRows, torch.device("cpu")), (KernelRows, device)):
        rows = kind(SparsePlan.from_dense(weights_TE.to(place), is_pair_TE=is_pair_TE.to(place)))
        dy, bias = dy_TD.to(place), bias_ED.to(place)
        out_ND = rows.add_bias(rows.gather(dy), bias)
        parts = (out_ND, rows.plan.weights_N, bias)
        sums = (rows.add_up(out_ND, dtype), rows.combine(*parts, dtype), rows.by_expert(out_ND))
        found.append([out_ND, *sums, *rows.spread(dy, *parts, needs=(True, True))])
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    return all(
        one is not None
        and other is not None
        and torch.allclose(one.float(), other.cpu().float(), rtol=tolerance, atol=tolerance)
        for one, other in zip(*found, strict=True)
    )


kernels_work = Probe(_is_right, otherwise=False)
"""Whether Triton's kernels are there for a device and a precision, and move rows as torch does."""


def is_learning(*parts: Tensor | None) -> bool:
    """Return whether gradients are recorded and one of these asks for its own."""
    return torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)


@untraced
def _gathered(x_TD: Tensor, rows: PairRows, dtype: torch.dtype) -> Tensor:
    x_ND: Tensor = _Gathered.apply(x_TD, rows, dtype)  # type: ignore[no-untyped-call]
    return x_ND


@untraced
def _biased(h_NJ: Tensor, bias_EJ: Tensor, rows: PairRows) -> Tensor:
    y_NJ: Tensor = _Biased.apply(h_NJ, bias_EJ, rows)  # type: ignore[no-untyped-call]
    return y_NJ


@untraced
def _combined(
    out_ND: Tensor, weights_N: Tensor, bias_ED: Tensor | None, rows: PairRows, dtype: torch.dtype
) -> Tensor:
    y_TD: Tensor = _Combined.apply(out_ND, weights_N, bias_ED, rows, dtype)  # type: ignore[no-untyped-call]
    return y_TD


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, rows: PairRows, dtype: torch.dtype) -> Tensor:
        ctx.rows, ctx.dtype = rows, x_TD.dtype
        return rows.gather(x_TD.to(dtype))

    @staticmethod
    @once
    def backward(ctx: Any, dx_ND: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rows.add_up(dx_ND, ctx.dtype), None, None


class _Biased(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_NJ: Tensor, bias_EJ: Tensor, rows: PairRows) -> Tensor:
        ctx.rows, ctx.dtype = rows, bias_EJ.dtype
        return rows.add_bias(h_NJ, bias_EJ)

    @staticmethod
    @once
    def backward(ctx: Any, dy_NJ: Tensor) -> tuple[Tensor, Tensor | None, None]:
        return dy_NJ, ctx.rows.by_expert(dy_NJ).to(ctx.dtype) if ctx.needs_input_grad[1] else None, None


class _Combined(torch.autograd.Function):
    """The biases are added within the sums, so that there is no copy of the rows with them."""

    @staticmethod
    def forward(
        ctx: Any,
        out_ND: Tensor,
        weights_N: Tensor,
        bias_ED: Tensor | None,
        rows: PairRows,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(out_ND, weights_N, bias_ED)
        return rows.combine(out_ND, weights_N, bias_ED, dtype)

    @staticmethod
    @once
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        out_ND, weights_N, bias_ED = ctx.saved_tensors
        needs_out, needs_weights, needs_bias = ctx.needs_input_grad[:3]
        needs = (needs_out or needs_bias, needs_weights)
        dout_ND, dweights_N = ctx.rows.spread(dy_TD, out_ND, weights_N, bias_ED, needs)
        dbias_ED = ctx.rows.by_expert(dout_ND).to(bias_ED.dtype) if needs_bias else None
        dweights_N = None if dweights_N is None else dweights_N.to(weights_N.dtype)
        return dout_ND if needs_out else None, dweights_N, dbias_ED, None, None
