"""This module launches the Triton kernels that read and write rows of pairs; none multiplies matrices."""

from __future__ import annotations

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


def combine(x_ND: Tensor, place_TK: Tensor, weights_N: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return (T, D): the sum of each token's rows, weighted where weights are given; 0 without any."""
    (num_tokens, num_columns), width = place_TK.shape, x_ND.shape[1]
    y_TD = x_ND.new_empty(num_tokens, width, dtype=dtype)
    if num_tokens:
        rows.combine_kernel[(-(-num_tokens // 2), -(-width // 1024))](
            x_ND, y_TD, place_TK, x_ND if weights_N is None else weights_N, num_tokens, num_columns, width,
            WEIGH=weights_N is not None, ROWS=2, WIDTH=1024,
        )  # fmt: skip
    return y_TD


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
