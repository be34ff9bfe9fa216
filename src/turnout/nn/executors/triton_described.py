"""This module holds the products of `triton_kernels` for tiles that the device copies by itself.

A tensor descriptor names a matrix and the size of a tile; the copy engine of newer accelerators brings the
tile, where the kernels of `triton_kernels` work out an address for each 16 bytes. What is gathered is still
read by addresses. All sizes are multiples of a tile's, but for the rows of an expert: a tile that goes on
into the next expert's rows reads them, and writes its own alone.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# mypy: disable-error-code="possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl

from turnout.nn.executors.triton_kernels import write_tile


@triton.jit(do_not_specialize=("num_blocks", "num_pairs"))
def product_kernel(
    x_desc, x_ptr, weight_desc, y_ptr, h_ptr, rows_ptr, blocks_ptr, num_blocks, num_pairs,
    num_outputs, num_inputs,
    GATHER: tl.constexpr, SWIGLU: tl.constexpr, KEEP: tl.constexpr, TURNED: tl.constexpr,
    WIDEN: tl.constexpr, GROUP: tl.constexpr, STAYS: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """y[n] = W_e x[rows[n]], as `triton_kernels.product_kernel`; TURNED reads W_e as (inputs, outputs).

    With STAYS there is a program for each processor, which reads its next tile while it writes the last one;
    else there is one for each tile.
    """
    num_columns = num_outputs // OUTPUTS
    busy = tl.load(blocks_ptr + 3 * num_blocks)
    for tile in tl.range(tl.program_id(0), busy * num_columns, tl.num_programs(0), flatten=STAYS):
        group = tile // (GROUP * num_columns)
        size = min(busy - group * GROUP, GROUP)
        within = tile % (GROUP * num_columns)
        block = group * GROUP + within % size
        expert = tl.load(blocks_ptr + block)
        start = tl.load(blocks_ptr + num_blocks + block)
        j0 = (within // size) * OUTPUTS
        if GATHER:
            row = tl.minimum(start + tl.arange(0, ROWS), num_pairs - 1)
            source = tl.load(rows_ptr + row).to(tl.int64)
            x_at = x_ptr + source[:, None] * num_inputs + tl.arange(0, INPUTS)[None, :]
        if SWIGLU:
            place = expert * (2 * num_outputs) + j0
        elif TURNED:
            place = expert * num_inputs
        else:
            place = expert * num_outputs + j0
        first = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        second = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        for k0 in range(0, num_inputs, INPUTS):
            x = tl.load(x_at + k0) if GATHER else x_desc.load([start, k0])
            weight = weight_desc.load([place + k0, j0]) if TURNED else weight_desc.load([place, k0]).T
            if WIDEN:
                x, weight = x.to(tl.float32), weight.to(tl.float32)
            first = tl.dot(x, weight, first, input_precision="ieee")
            if SWIGLU:
                other = weight_desc.load([place + num_outputs, k0]).T
                if WIDEN:
                    other = other.to(tl.float32)
                second = tl.dot(x, other, second, input_precision="ieee")
        n = start + tl.arange(0, ROWS)
        j = j0 + tl.arange(0, OUTPUTS)
        is_row = (n < tl.load(blocks_ptr + 2 * num_blocks + block))[:, None]
        write_tile(y_ptr, h_ptr, first, second, n, j, is_row, num_outputs, SWIGLU=SWIGLU, KEEP=KEEP)


@triton.jit
def gradient_kernel(
    left_desc, right_desc, left_ptr, right_ptr, out_ptr, rows_ptr, offsets_ptr, num_left, num_right,
    GATHER_LEFT: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """out[e] = left^T right over the expert's pairs; 0 for an expert without any."""
    num_tiles = num_left // LEFT
    expert = tl.program_id(0) // (num_tiles * (num_right // RIGHT))
    within = tl.program_id(0) % (num_tiles * (num_right // RIGHT))
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    j0 = (within % num_tiles) * LEFT
    k0 = (within // num_tiles) * RIGHT
    j, k = j0 + tl.arange(0, LEFT), k0 + tl.arange(0, RIGHT)
    r = tl.arange(0, ROWS)
    total = tl.zeros((LEFT, RIGHT), dtype=tl.float32)
    # Whole steps are read without a mask; what is left over reads no other expert's rows, which may be NaN.
    whole = start + (end - start) // ROWS * ROWS
    for n0 in range(start, whole, ROWS):
        if GATHER_LEFT:
            token = tl.load(rows_ptr + n0 + r).to(tl.int64)
            left = tl.load(left_ptr + token[:, None] * num_left + j[None, :])
        else:
            left = left_desc.load([n0, j0])
        right = right_desc.load([n0, k0])
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left.T, right, total, input_precision="ieee")
    if whole < end:
        n = (whole + r).to(tl.int64)
        is_row = (n < end)[:, None]
        left_n = tl.load(rows_ptr + n, mask=n < end, other=0).to(tl.int64) if GATHER_LEFT else n
        left = tl.load(left_ptr + left_n[:, None] * num_left + j[None, :], mask=is_row, other=0.0)
        right = tl.load(right_ptr + n[:, None] * num_right + k[None, :], mask=is_row, other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left.T, right, total, input_precision="ieee")
    place = expert.to(tl.int64) * num_left * num_right + j[:, None].to(tl.int64) * num_right + k[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty))
