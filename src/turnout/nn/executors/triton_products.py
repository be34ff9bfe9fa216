"""This module launches the Triton kernels of products, as operations that torch knows.

Axes as in `triton_kernels`: N pairs, T tokens, E experts, J outputs, K inputs, F = 2 I; blocks as in
`triton_layout`.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from turnout.nn.executors import triton_tiles
from turnout.nn.executors.triton_tiles import IS_INTERPRETED, Kind, are_described, describe
from turnout.nn.operation import define

# `triton_tiles` has looked for the extra.
from turnout.nn.executors import triton_described as described  # isort: skip
from turnout.nn.executors import triton_kernels as kernels  # isort: skip


def _product(
    x_NK: Tensor, weight_EJK: Tensor, rows_N: Tensor | None, blocks: Tensor, num_pairs: int
) -> Tensor:
    y_NJ = _product_output(x_NK, weight_EJK, rows_N, blocks, num_pairs)
    kind: Kind = "product" if rows_N is None else "gathered product"
    _launch(x_NK, weight_EJK, y_NJ, None, rows_N, blocks, kind)
    return y_NJ


def _product_output(
    x_NK: Tensor, weight_EJK: Tensor, _rows_N: Tensor | None, _blocks: Tensor, num_pairs: int
) -> Tensor:
    return x_NK.new_empty(num_pairs, weight_EJK.shape[1])


def _swiglu(
    x_TD: Tensor, up_EFD: Tensor, rows_N: Tensor, blocks: Tensor, is_kept: bool
) -> tuple[Tensor, Tensor]:
    inner_NI, h_NF = _swiglu_outputs(x_TD, up_EFD, rows_N, blocks, is_kept)
    _launch(x_TD, up_EFD, inner_NI, h_NF if is_kept else None, rows_N, blocks, "swiglu")
    return inner_NI, h_NF


def _swiglu_outputs(
    x_TD: Tensor, up_EFD: Tensor, rows_N: Tensor, _blocks: Tensor, is_kept: bool
) -> tuple[Tensor, Tensor]:
    num_pairs, joined = rows_N.shape[0], up_EFD.shape[1]
    return x_TD.new_empty(num_pairs, joined // 2), x_TD.new_empty(num_pairs if is_kept else 0, joined)


def _gradient(left_NJ: Tensor, right_NK: Tensor, rows_N: Tensor | None, offsets_E: Tensor) -> Tensor:
    left_NJ, right_NK = left_NJ.contiguous(), right_NK.contiguous()
    out_EJK = _gradient_output(left_NJ, right_NK, rows_N, offsets_E)
    num_experts, num_left, num_right = out_EJK.shape
    kind: Kind = "gradient" if rows_N is None else "gathered gradient"
    tiles = triton_tiles.tiles_for(kind, len(right_NK), num_experts, left_NJ.dtype)
    is_described = len(right_NK) > 0 and are_described(tiles, num_left, num_right, left_NJ, right_NK)
    if not is_described:
        # An address for each number takes registers.
        tiles = replace(tiles, warps=8)
    grid = (-(-num_left // tiles.outputs) * -(-num_right // tiles.inputs) * num_experts,)
    shape = {"ROWS": tiles.rows, "LEFT": tiles.outputs, "RIGHT": tiles.inputs}
    shape |= {"WIDEN": _is_widened(left_NJ), "GATHER_LEFT": rows_N is not None, **tiles.launch()}
    gathered = offsets_E if rows_N is None else rows_N
    if is_described:
        left = describe(left_NJ, [tiles.rows, tiles.outputs])
        right = describe(right_NK, [tiles.rows, tiles.inputs])
        described.gradient_kernel[grid](
            left, right, left_NJ, right_NK, out_EJK, gathered, offsets_E, num_left, num_right, **shape
        )
        return out_EJK
    kernels.gradient_kernel[grid](
        left_NJ, right_NK, out_EJK, gathered, offsets_E, num_left, num_right,
        EVEN=num_left % tiles.outputs == 0 and num_right % tiles.inputs == 0, PRECISION=_precision(), **shape,
    )  # fmt: skip
    return out_EJK


def _gradient_output(left_NJ: Tensor, right_NK: Tensor, _rows_N: Tensor | None, offsets_E: Tensor) -> Tensor:
    return left_NJ.new_empty(offsets_E.shape[0], left_NJ.shape[1], right_NK.shape[1])


_product_op = define(
    "pairs_product(Tensor x, Tensor weight, Tensor? rows, Tensor blocks, int pairs) -> Tensor",
    _product,
    _product_output,
)
_swiglu_op = define(
    "pairs_swiglu(Tensor x, Tensor up, Tensor rows, Tensor blocks, bool is_kept) -> (Tensor, Tensor)",
    _swiglu,
    _swiglu_outputs,
)
_gradient_op = define(
    "pairs_gradient(Tensor left, Tensor right, Tensor? rows, Tensor offsets) -> Tensor",
    _gradient,
    _gradient_output,
)


def pairs_product(
    x_NK: Tensor, weight_EJK: Tensor, rows_N: Tensor | None, blocks: Tensor, num_pairs: int
) -> Tensor:
    """Return (N, J): W_e x of each pair's row; row n, or rows_N[n] where that is given."""
    y_NJ: Tensor = _product_op(x_NK, weight_EJK, rows_N, blocks, num_pairs)
    return y_NJ


def pairs_swiglu(
    x_TD: Tensor, up_EFD: Tensor, rows_N: Tensor, blocks: Tensor, *, is_kept: bool
) -> tuple[Tensor, Tensor]:
    """Return the inner states (N, I) and what was before the activation (N, F), empty unless it is kept."""
    found: tuple[Tensor, Tensor] = _swiglu_op(x_TD, up_EFD, rows_N, blocks, is_kept)
    return found


def pairs_gradient(left_NJ: Tensor, right_NK: Tensor, rows_N: Tensor | None, offsets_E: Tensor) -> Tensor:
    """Return (E, J, K): left^T right of each expert's pairs; left is gathered where `rows_N` is given."""
    out_EJK: Tensor = _gradient_op(left_NJ, right_NK, rows_N, offsets_E)
    return out_EJK


def _launch(
    x_NK: Tensor,
    weight_EJK: Tensor,
    y_NJ: Tensor,
    h_NF: Tensor | None,
    rows_N: Tensor | None,
    blocks: Tensor,
    kind: Kind,
) -> None:
    num_pairs, num_outputs = y_NJ.shape
    if not num_pairs:
        return
    x_NK, num_inputs, num_blocks = x_NK.contiguous(), x_NK.shape[1], blocks.shape[0] // 3
    tiles = triton_tiles.tiles_for(kind, num_pairs, weight_EJK.shape[0], x_NK.dtype)
    rows, h = blocks if rows_N is None else rows_N, y_NJ if h_NF is None else h_NF
    shape = {"ROWS": tiles.rows, "OUTPUTS": tiles.outputs, "INPUTS": tiles.inputs, "GROUP": tiles.group}
    shape |= {"GATHER": rows_N is not None, "SWIGLU": kind == "swiglu", "KEEP": h_NF is not None}
    shape |= {"WIDEN": _is_widened(x_NK), **tiles.launch()}
    is_turned = weight_EJK.stride(2) != 1
    lying = weight_EJK.transpose(1, 2) if is_turned else weight_EJK
    num_tiles = num_blocks * -(-num_outputs // tiles.outputs)
    # Both halves of a turned weight lie side by side, which is read by addresses.
    is_one = kind != "swiglu" or not is_turned
    if is_one and are_described(tiles, num_outputs, num_inputs, x_NK, lying):
        x = describe(x_NK, [tiles.rows, tiles.inputs])
        sizes = [tiles.outputs, tiles.inputs]
        weight = describe(lying, sizes[::-1] if is_turned else sizes)
        grid = (min(num_tiles, _processors(x_NK.device)) if tiles.stays else num_tiles,)
        described.product_kernel[grid](
            x, x_NK, weight, y_NJ, h, rows, blocks, num_blocks, num_pairs, num_outputs, num_inputs,
            TURNED=is_turned, STAYS=tiles.stays, **shape,
        )  # fmt: skip
        return
    kernels.product_kernel[(num_tiles,)](
        x_NK, weight_EJK, y_NJ, h, rows, blocks, num_blocks, num_pairs, num_outputs, num_inputs,
        x_NK.stride(0), *weight_EJK.stride(), PRECISION=_precision(),
        EVEN=num_outputs % tiles.outputs == 0 and num_inputs % tiles.inputs == 0, **shape,
    )  # fmt: skip


def _precision() -> str:
    """Return how single precision is multiplied: exactly, unless torch may do less."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _is_widened(x_NK: Tensor) -> bool:
    # The interpreter takes bfloat16 for whole numbers in a product.
    return IS_INTERPRETED and x_NK.dtype == torch.bfloat16


@functools.cache
def _processors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; in the interpreter 3, so that programs go on."""
    return 3 if IS_INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count
