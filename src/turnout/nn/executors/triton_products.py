"""This module launches the Triton kernels, as operations that torch knows, so that they can be counted.

Axes as in `triton_kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import missing_extra

try:
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    from turnout.nn.executors import triton_kernels as kernels
except ImportError as error:
    raise missing_extra("triton", feature="experts by Triton", extra="triton") from error

IS_INTERPRETED = isinstance(kernels.product_kernel, InterpretedFunction)
"""Whether the kernels run in Triton's interpreter, on any device (TRITON_INTERPRET=1 before the import)."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Sizes of a tile: rows of pairs, outputs and inputs; powers of two, at least 16."""

    rows: int
    outputs: int
    inputs: int


def tiles_for(num_pairs: int, num_experts: int) -> Tiles:
    """Return tiles for as many rows as an expert has on average. Not tuned: no accelerator was there."""
    mean = num_pairs / max(num_experts, 1)
    rows = next((size for size in (16, 32, 64) if mean <= size), 128)
    return Tiles(rows=rows, outputs=128, inputs=64)


def blocks_of_rows(offsets_E: Tensor, num_pairs: int, rows: int) -> Tensor:
    """Return (3, B) int32: expert, start and end of each block of rows; waits for no accelerator.

    B is the most that there may be; blocks past the last have no rows.
    """
    num_experts = offsets_E.shape[0]
    ends_E = offsets_E.to(torch.int64)
    starts_E = torch.cat([ends_E.new_zeros(1), ends_E[:-1]])
    through_E = ((ends_E - starts_E + rows - 1) // rows).cumsum(0)
    block_B = torch.arange(-(-num_pairs // rows) + num_experts, device=offsets_E.device)
    expert_B = torch.searchsorted(through_E, block_B, right=True)
    is_past_B = expert_B >= num_experts
    expert_B = expert_B.clamp(max=num_experts - 1)
    first_B = torch.where(expert_B > 0, through_E[expert_B - 1], 0)
    start_B = torch.where(is_past_B, num_pairs, starts_E[expert_B] + (block_B - first_B) * rows)
    return torch.stack([expert_B, start_B, ends_E[expert_B]]).to(torch.int32)


@torch.library.custom_op("turnout::pairs_product", mutates_args=())
def pairs_product(
    x_NK: Tensor, weight_EJK: Tensor, rows_N: Tensor | None, offsets_E: Tensor, num_pairs: int
) -> Tensor:
    """Return (N, J): W_e x of each pair's row; row n, or rows_N[n] where that is given."""
    y_NJ = x_NK.new_empty(num_pairs, weight_EJK.shape[1])
    _launch(x_NK, weight_EJK, y_NJ, None, rows_N, offsets_E, is_swiglu=False)
    return y_NJ


@torch.library.custom_op("turnout::pairs_swiglu", mutates_args=())
def pairs_swiglu(
    x_TD: Tensor, up_EFD: Tensor, rows_N: Tensor, offsets_E: Tensor, is_kept: bool
) -> tuple[Tensor, Tensor]:
    """Return the inner states (N, I) and what was before the activation (N, F), empty unless it is kept."""
    num_pairs, joined = rows_N.shape[0], up_EFD.shape[1]
    inner_NI = x_TD.new_empty(num_pairs, joined // 2)
    h_NF = x_TD.new_empty(num_pairs if is_kept else 0, joined)
    _launch(x_TD, up_EFD, inner_NI, h_NF if is_kept else None, rows_N, offsets_E, is_swiglu=True)
    return inner_NI, h_NF


@torch.library.custom_op("turnout::pairs_gradient", mutates_args=())
def pairs_gradient(
    left_NJ: Tensor,
    right_NK: Tensor,
    rows_N: Tensor | None,
    scale_N: Tensor | None,
    offsets_E: Tensor,
    gathers_left: bool,
) -> Tensor:
    """Return (E, J, K): left^T right of each expert's pairs, left times scale_N.

    Where `rows_N` is given, one side is gathered by it: the left one, or the right one.
    """
    left_NJ, right_NK = left_NJ.contiguous(), right_NK.contiguous()
    num_left, num_right, num_experts = left_NJ.shape[1], right_NK.shape[1], offsets_E.shape[0]
    out_EJK = left_NJ.new_empty(num_experts, num_left, num_right)
    num_pairs = (right_NK if gathers_left else left_NJ).shape[0]
    tiles = tiles_for(num_pairs, num_experts)
    bounds = torch.cat([offsets_E.new_zeros(1), offsets_E])
    grid = (triton.cdiv(num_left, tiles.outputs), triton.cdiv(num_right, tiles.outputs), num_experts)
    kernels.gradient_kernel[grid](
        left_NJ, right_NK, out_EJK, bounds if rows_N is None else rows_N,
        left_NJ if scale_N is None else scale_N, bounds,
        num_left, num_right, left_NJ.stride(0), right_NK.stride(0),
        GATHER_LEFT=rows_N is not None and gathers_left, GATHER_RIGHT=rows_N is not None and not gathers_left,
        SCALE=scale_N is not None, WIDEN=_is_widened(left_NJ),
        ROWS=tiles.rows, LEFT=tiles.outputs, RIGHT=tiles.outputs,
    )  # fmt: skip
    return out_EJK


def combine(x_ND: Tensor, place_TK: Tensor, weights_N: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return (T, D): the sum of each token's rows, weighted where weights are given; 0 without any."""
    num_tokens, num_columns = place_TK.shape
    y_TD = x_ND.new_empty(num_tokens, x_ND.shape[1], dtype=dtype)
    if num_tokens:
        kernels.combine_kernel[(triton.cdiv(num_tokens, 16), triton.cdiv(x_ND.shape[1], 128))](
            x_ND, y_TD, place_TK, x_ND if weights_N is None else weights_N, num_tokens, num_columns,
            x_ND.shape[1], WEIGH=weights_N is not None, ROWS=16, WIDTH=128,
        )  # fmt: skip
    return y_TD


def swiglu_backward(h_NF: Tensor, dinner_NI: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inner states (N, I), the gradient in h (N, F), weighted, and that in the weights (N,)."""
    inner_NI, dh_NF = torch.empty_like(dinner_NI), torch.empty_like(h_NF)
    dweights_N = torch.empty(len(h_NF), dtype=torch.float32, device=h_NF.device)
    if len(h_NF):
        kernels.swiglu_backward_kernel[(triton.cdiv(len(h_NF), 16),)](
            h_NF, dinner_NI, weights_N, inner_NI, dh_NF, dweights_N, len(h_NF), dinner_NI.shape[1],
            ROWS=16, INNER=128,
        )  # fmt: skip
    return inner_NI, dh_NF, dweights_N


def _launch(
    x_NK: Tensor,
    weight_EJK: Tensor,
    y_NJ: Tensor,
    h_NF: Tensor | None,
    rows_N: Tensor | None,
    offsets_E: Tensor,
    *,
    is_swiglu: bool,
) -> None:
    num_pairs, num_outputs = y_NJ.shape
    if not num_pairs:
        return
    x_NK = x_NK.contiguous()
    tiles = tiles_for(num_pairs, offsets_E.shape[0])
    blocks = blocks_of_rows(offsets_E, num_pairs, tiles.rows)
    grid = (blocks.shape[1], triton.cdiv(num_outputs, tiles.outputs))
    kernels.product_kernel[grid](
        x_NK, weight_EJK, y_NJ, y_NJ if h_NF is None else h_NF, blocks if rows_N is None else rows_N, blocks,
        blocks.shape[1], num_outputs, x_NK.shape[1], x_NK.stride(0), *weight_EJK.stride(),
        GATHER=rows_N is not None, SWIGLU=is_swiglu, KEEP=h_NF is not None, WIDEN=_is_widened(x_NK),
        ROWS=tiles.rows, OUTPUTS=tiles.outputs, INPUTS=tiles.inputs,
    )  # fmt: skip


def _is_widened(x_NK: Tensor) -> bool:
    # The interpreter takes bfloat16 for whole numbers in a product.
    return IS_INTERPRETED and x_NK.dtype == torch.bfloat16
