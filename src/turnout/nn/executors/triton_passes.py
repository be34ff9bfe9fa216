"""This module launches the Triton kernels that read and write rows of pairs; none multiplies matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from turnout.nn.executors import triton_rows as rows


def gather(x_TD: Tensor, rows_N: Tensor) -> Tensor:
    """Return (N, D): the row of each pair."""
    x_TD, num_pairs, width = x_TD.contiguous(), len(rows_N), x_TD.shape[1]
    y_ND = x_TD.new_empty(num_pairs, width)
    if num_pairs:
        rows.gather_kernel[(-(-num_pairs // 16), -(-width // 128))](
            x_TD, y_ND, rows_N, num_pairs, width, ROWS=16, WIDTH=128
        )
    return y_ND


def combine(
    x_ND: Tensor,
    place_TK: Tensor,
    weights_N: Tensor | None,
    dtype: torch.dtype,
    *,
    bias_ED: Tensor | None = None,
    experts_N: Tensor | None = None,
) -> Tensor:
    """Return (T, D): the sum of each token's rows, weighted where weights are given; 0 without any.

    Where biases are given, each row's expert is too, and its bias is added to the row first.
    """
    (num_tokens, num_columns), width = place_TK.shape, x_ND.shape[1]
    y_TD, x_ND = x_ND.new_empty(num_tokens, width, dtype=dtype), x_ND.contiguous()
    if num_tokens:
        bias_ED = None if bias_ED is None else bias_ED.contiguous()
        rows.combine_kernel[(-(-num_tokens // 2), -(-width // 1024))](
            x_ND, y_TD, place_TK, x_ND if weights_N is None else weights_N,
            x_ND if bias_ED is None else bias_ED, place_TK if bias_ED is None else experts_N,
            num_tokens, num_columns, width,
            WEIGH=weights_N is not None, BIAS=bias_ED is not None, ROWS=2, WIDTH=1024,
        )  # fmt: skip
    return y_TD


def spread(
    dy_TD: Tensor,
    x_ND: Tensor,
    weights_N: Tensor,
    bias_ED: Tensor | None,
    tokens_N: Tensor,
    experts_N: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of `combine` in its rows (N, D) and in the weights (N,); None where not needed."""
    x_ND, dy_TD, (num_pairs, width) = x_ND.contiguous(), dy_TD.contiguous(), x_ND.shape
    dx_ND = torch.empty_like(x_ND) if needs[0] else None
    dweights_N = x_ND.new_empty(num_pairs, dtype=torch.float32) if needs[1] else None
    if num_pairs:
        bias_ED = None if bias_ED is None else bias_ED.contiguous()
        rows.spread_kernel[(-(-num_pairs // 4),)](
            dy_TD, x_ND, tokens_N, weights_N, x_ND if bias_ED is None else bias_ED, experts_N,
            x_ND if dx_ND is None else dx_ND, weights_N if dweights_N is None else dweights_N,
            num_pairs, width,
            OUT=needs[0], SUM=needs[1], BIAS=bias_ED is not None, ROWS=4, WIDTH=512,
        )  # fmt: skip
    return dx_ND, dweights_N


def add_bias(x_NJ: Tensor, bias_EJ: Tensor, experts_N: Tensor) -> Tensor:
    """Return (N, J): each row with its expert's bias added."""
    x_NJ, bias_EJ, (num_pairs, width) = x_NJ.contiguous(), bias_EJ.contiguous(), x_NJ.shape
    y_NJ = torch.empty_like(x_NJ)
    if num_pairs:
        rows.bias_kernel[(-(-num_pairs // 16), -(-width // 128))](
            x_NJ, bias_EJ, experts_N, y_NJ, num_pairs, width, ROWS=16, WIDTH=128
        )
    return y_NJ


def by_expert(x_NJ: Tensor, offsets_E: Tensor) -> Tensor:
    """Return (E, J) in single precision: the sum of each expert's rows."""
    x_NJ, num_experts, width = x_NJ.contiguous(), len(offsets_E), x_NJ.shape[1]
    y_EJ = x_NJ.new_empty(num_experts, width, dtype=torch.float32)
    rows.expert_sum_kernel[(num_experts, -(-width // 64))](
        x_NJ, offsets_E, y_EJ, width, ROWS=128, WIDTH=64, num_warps=8
    )
    return y_EJ


def swiglu_backward(h_NF: Tensor, dinner_NI: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight times inner states (N, I), the gradients in h (N, F), weighted, and in weights (N,)."""
    inner_NI, dh_NF = torch.empty_like(dinner_NI), torch.empty_like(h_NF)
    dweights_N = torch.empty(len(h_NF), dtype=torch.float32, device=h_NF.device)
    if len(h_NF):
        rows.swiglu_backward_kernel[(-(-len(h_NF) // 4),)](
            h_NF, dinner_NI, weights_N, inner_NI, dh_NF, dweights_N, len(h_NF), dinner_NI.shape[1],
            ROWS=4, INNER=256,
        )  # fmt: skip
    return inner_NI, dh_NF, dweights_N
