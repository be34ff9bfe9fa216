"""This module holds the Triton kernels of experts' matrix products: over pairs, and of a gradient in weights.

A program computes one tile. Rows are those of a plan, sorted by expert; a block of rows lies within one
expert, and `blocks` (`triton_layout`) says of each which one, where it starts and where the expert ends; one
past the last ends at once. Rows may be gathered by `rows` while they are read: no copy of the states is made.
Programs that follow each other share `GROUP` blocks of rows, and so what they read of the weights.

Axes: N pairs, T tokens, E experts, J outputs, K inputs.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# mypy: disable-error-code="possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def write_tile(
    y_ptr, h_ptr, first, second, n, j, is_tile, num_outputs, SWIGLU: tl.constexpr, KEEP: tl.constexpr
):  # fmt: skip
    """Write the outputs of a tile; with SWIGLU silu(first) * second, and both before it into h with KEEP."""
    kind = y_ptr.dtype.element_ty
    y = first.to(kind)
    if SWIGLU:
        # Rounded as the states before the activation are, which the backward pass reads.
        up = second.to(kind)
        if KEEP:
            h_at = h_ptr + n[:, None].to(tl.int64) * (2 * num_outputs) + j[None, :]
            tl.store(h_at, y, mask=is_tile)
            tl.store(h_at + num_outputs, up, mask=is_tile)
        gate = y.to(tl.float32)
        y = (gate * tl.sigmoid(gate) * up.to(tl.float32)).to(kind)
    tl.store(y_ptr + n[:, None].to(tl.int64) * num_outputs + j[None, :], y, mask=is_tile)


@triton.jit(do_not_specialize=("num_blocks", "num_pairs"))
def product_kernel(
    x_ptr, weight_ptr, y_ptr, h_ptr, rows_ptr, blocks_ptr, num_blocks, num_pairs, num_outputs, num_inputs,
    stride_xn, stride_we, stride_wj, stride_wk,
    GATHER: tl.constexpr, SWIGLU: tl.constexpr, KEEP: tl.constexpr, WIDEN: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """y[n] = W_e x[rows[n]]; with SWIGLU silu(first half) * second half of it, and h holds both halves."""
    num_columns = tl.cdiv(num_outputs, OUTPUTS)
    program = tl.program_id(0)
    group = program // (GROUP * num_columns)
    size = min(num_blocks - group * GROUP, GROUP)
    within = program % (GROUP * num_columns)
    block = group * GROUP + within % size
    start = tl.load(blocks_ptr + num_blocks + block)
    end = tl.load(blocks_ptr + 2 * num_blocks + block)
    if start < end:
        expert = tl.load(blocks_ptr + block).to(tl.int64)
        n = start + tl.arange(0, ROWS)
        is_row = n < end
        j = (within // size) * OUTPUTS + tl.arange(0, OUTPUTS)
        is_output = j < num_outputs
        # What is read beyond the rows and outputs of a tile is never written.
        source = tl.minimum(n, num_pairs - 1).to(tl.int64)
        if GATHER:
            source = tl.load(rows_ptr + source).to(tl.int64)
        j_read = j if EVEN else tl.minimum(j, num_outputs - 1)
        k = tl.arange(0, INPUTS)
        x_at = x_ptr + source[:, None] * stride_xn + k[None, :]
        weight_at = weight_ptr + expert * stride_we + j_read[None, :] * stride_wj + k[:, None] * stride_wk
        first = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        second = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        for k0 in range(0, num_inputs, INPUTS):
            if EVEN:
                x = tl.load(x_at)
                weight = tl.load(weight_at)
            else:
                is_input = k < num_inputs - k0
                x = tl.load(x_at, mask=is_input[None, :], other=0.0)
                weight = tl.load(weight_at, mask=is_input[:, None], other=0.0)
            if WIDEN:
                x, weight = x.to(tl.float32), weight.to(tl.float32)
            first = tl.dot(x, weight, first, input_precision=PRECISION)
            if SWIGLU:
                if EVEN:
                    other = tl.load(weight_at + num_outputs * stride_wj)
                else:
                    other = tl.load(
                        weight_at + num_outputs * stride_wj, mask=is_input[:, None], other=0.0
                    )  # fmt: skip
                if WIDEN:
                    other = other.to(tl.float32)
                second = tl.dot(x, other, second, input_precision=PRECISION)
            x_at += INPUTS
            weight_at += INPUTS * stride_wk
        is_tile = is_row[:, None] & is_output[None, :]
        write_tile(y_ptr, h_ptr, first, second, n, j, is_tile, num_outputs, SWIGLU=SWIGLU, KEEP=KEEP)


@triton.jit
def gradient_kernel(
    left_ptr, right_ptr, out_ptr, rows_ptr, offsets_ptr, num_left, num_right,
    GATHER_LEFT: tl.constexpr, WIDEN: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """out[e] = left^T right over the expert's pairs; 0 for an expert without any."""
    num_tiles = tl.cdiv(num_left, LEFT)
    # Experts along the first axis of the grid: others are of 65,535 programs at most.
    expert = tl.program_id(0) // (num_tiles * tl.cdiv(num_right, RIGHT))
    within = tl.program_id(0) % (num_tiles * tl.cdiv(num_right, RIGHT))
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    j = (within % num_tiles) * LEFT + tl.arange(0, LEFT)
    k = (within // num_tiles) * RIGHT + tl.arange(0, RIGHT)
    is_left, is_right = j < num_left, k < num_right
    j_read = j if EVEN else tl.minimum(j, num_left - 1)
    k_read = k if EVEN else tl.minimum(k, num_right - 1)
    r = tl.arange(0, ROWS)
    total = tl.zeros((LEFT, RIGHT), dtype=tl.float32)
    # Whole steps are read without a mask; what is left over reads no other expert's rows, which may be NaN.
    whole = start + (end - start) // ROWS * ROWS
    for n0 in range(start, whole, ROWS):
        n = (n0 + r).to(tl.int64)
        left_n = tl.load(rows_ptr + n).to(tl.int64) if GATHER_LEFT else n
        left = tl.load(left_ptr + left_n[None, :] * num_left + j_read[:, None])
        right = tl.load(right_ptr + n[:, None] * num_right + k_read[None, :])
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    if whole < end:
        n = (whole + r).to(tl.int64)
        is_row = n < end
        left_n = tl.load(rows_ptr + n, mask=is_row, other=0).to(tl.int64) if GATHER_LEFT else n
        left_at = left_ptr + left_n[None, :] * num_left + j_read[:, None]
        right_at = right_ptr + n[:, None] * num_right + k_read[None, :]
        left = tl.load(left_at, mask=is_row[None, :], other=0.0)
        right = tl.load(right_at, mask=is_row[:, None], other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    place = expert.to(tl.int64) * num_left * num_right + j[:, None].to(tl.int64) * num_right + k[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_left[:, None] & is_right[None, :])
