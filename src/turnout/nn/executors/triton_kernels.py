"""This module holds the Triton kernels of experts: products over pairs, their gradients, the sum per token.

A program computes one tile. Rows are those of a plan, sorted by expert; a block of rows lies within one
expert, and `blocks` (3, B) says of each which one, where it starts and where the expert ends; one past the
last has no rows. Rows may be gathered by `rows` while they are read: no copy of the states is made.

Axes: N pairs, T tokens, E experts, J outputs, K inputs, I inner size.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def product_kernel(
    x_ptr, weight_ptr, y_ptr, h_ptr, rows_ptr, blocks_ptr, num_blocks, num_outputs, num_inputs,
    stride_xn, stride_we, stride_wj, stride_wk,
    GATHER: tl.constexpr, SWIGLU: tl.constexpr, KEEP: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """y[n] = W_e x[rows[n]]; with SWIGLU silu(first half) * second half of it, and h holds both halves."""
    block = tl.program_id(0)
    expert = tl.load(blocks_ptr + block).to(tl.int64)
    start = tl.load(blocks_ptr + num_blocks + block)
    end = tl.load(blocks_ptr + 2 * num_blocks + block)
    n = start + tl.arange(0, ROWS)
    is_row = n < end
    j = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    is_output = j < num_outputs
    source = n.to(tl.int64)
    if GATHER:
        source = tl.load(rows_ptr + n, mask=is_row, other=0).to(tl.int64)
    first = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    second = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    weight_ptr += expert * stride_we
    for k0 in range(0, num_inputs, INPUTS):
        k = k0 + tl.arange(0, INPUTS)
        is_input = k < num_inputs
        x = tl.load(
            x_ptr + source[:, None] * stride_xn + k[None, :],
            mask=is_row[:, None] & is_input[None, :], other=0.0,
        )  # fmt: skip
        is_weight = is_input[:, None] & is_output[None, :]
        place = j[None, :] * stride_wj + k[:, None] * stride_wk
        weight = tl.load(weight_ptr + place, mask=is_weight, other=0.0)
        if WIDEN:
            x, weight = x.to(tl.float32), weight.to(tl.float32)
        first = tl.dot(x, weight, first, input_precision="ieee")
        if SWIGLU:
            other = tl.load(weight_ptr + num_outputs * stride_wj + place, mask=is_weight, other=0.0)
            if WIDEN:
                other = other.to(tl.float32)
            second = tl.dot(x, other, second, input_precision="ieee")
    kind = y_ptr.dtype.element_ty
    is_tile = is_row[:, None] & is_output[None, :]
    if SWIGLU:
        # Rounded as the states before the activation are, which the backward pass reads.
        first, second = first.to(kind), second.to(kind)
        if KEEP:
            h_place = n[:, None].to(tl.int64) * (2 * num_outputs) + j[None, :]
            tl.store(h_ptr + h_place, first, mask=is_tile)
            tl.store(h_ptr + h_place + num_outputs, second, mask=is_tile)
        first, second = first.to(tl.float32), second.to(tl.float32)
        first = first * tl.sigmoid(first) * second
    tl.store(y_ptr + n[:, None].to(tl.int64) * num_outputs + j[None, :], first.to(kind), mask=is_tile)


@triton.jit
def gradient_kernel(
    left_ptr, right_ptr, out_ptr, rows_ptr, scale_ptr, bounds_ptr, num_left, num_right, stride_ln, stride_rn,
    GATHER_LEFT: tl.constexpr, GATHER_RIGHT: tl.constexpr, SCALE: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """out[e] = left^T right over the expert's pairs, left scaled by `scale`; 0 for an expert without any."""
    expert = tl.program_id(2)
    start = tl.load(bounds_ptr + expert)
    end = tl.load(bounds_ptr + expert + 1)
    j = tl.program_id(0) * LEFT + tl.arange(0, LEFT)
    k = tl.program_id(1) * RIGHT + tl.arange(0, RIGHT)
    is_left, is_right = j < num_left, k < num_right
    kind = left_ptr.dtype.element_ty
    total = tl.zeros((LEFT, RIGHT), dtype=tl.float32)
    for n0 in range(start, end, ROWS):
        n = n0 + tl.arange(0, ROWS)
        is_row = n < end
        token = n.to(tl.int64)
        if GATHER_LEFT or GATHER_RIGHT:
            token = tl.load(rows_ptr + n, mask=is_row, other=0).to(tl.int64)
        left_n = token if GATHER_LEFT else n.to(tl.int64)
        right_n = token if GATHER_RIGHT else n.to(tl.int64)
        left = tl.load(
            left_ptr + left_n[None, :] * stride_ln + j[:, None],
            mask=is_left[:, None] & is_row[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            right_ptr + right_n[:, None] * stride_rn + k[None, :],
            mask=is_row[:, None] & is_right[None, :], other=0.0,
        )  # fmt: skip
        if SCALE:
            scale = tl.load(scale_ptr + n, mask=is_row, other=0.0).to(tl.float32)
            left = (left.to(tl.float32) * scale[None, :]).to(kind)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    place = expert.to(tl.int64) * num_left * num_right + j[:, None].to(tl.int64) * num_right + k[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_left[:, None] & is_right[None, :])


@triton.jit
def combine_kernel(
    x_ptr, y_ptr, place_ptr, weight_ptr, num_tokens, num_columns, width,
    WEIGH: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[t] = sum over a token's pairs, in the order of its columns, of weight times x; -1 is no pair."""
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_token, is_width = t < num_tokens, d < width
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for column in range(num_columns):
        n = tl.load(place_ptr + t.to(tl.int64) * num_columns + column, mask=is_token, other=-1).to(tl.int64)
        is_pair = n >= 0
        is_read = is_pair[:, None] & is_width[None, :]
        x = tl.load(x_ptr + n[:, None] * width + d[None, :], mask=is_read, other=0.0).to(tl.float32)
        if WEIGH:
            x = x * tl.load(weight_ptr + n, mask=is_pair, other=0.0).to(tl.float32)[:, None]
        total += x
    place = t[:, None].to(tl.int64) * width + d[None, :]
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), mask=is_token[:, None] & is_width[None, :])


@triton.jit
def swiglu_backward_kernel(
    h_ptr, dinner_ptr, weight_ptr, inner_ptr, dh_ptr, dweight_ptr, num_pairs, inner_size,
    ROWS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Of some pairs: the inner states again, the gradient in h, and <dinner, inner>, that in the weight."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_pair = n < num_pairs
    weight = tl.load(weight_ptr + n, mask=is_pair, other=0.0).to(tl.float32)
    sums = tl.zeros((ROWS,), dtype=tl.float32)
    kind = inner_ptr.dtype.element_ty
    for i0 in range(0, inner_size, INNER):
        i = i0 + tl.arange(0, INNER)
        is_in = is_pair[:, None] & (i < inner_size)[None, :]
        at = n[:, None].to(tl.int64) * inner_size + i[None, :]
        h_at = n[:, None].to(tl.int64) * (2 * inner_size) + i[None, :]
        gate = tl.load(h_ptr + h_at, mask=is_in, other=0.0).to(tl.float32)
        up = tl.load(h_ptr + h_at + inner_size, mask=is_in, other=0.0).to(tl.float32)
        dinner = tl.load(dinner_ptr + at, mask=is_in, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        sums += tl.sum(dinner * silu * up, axis=1)
        dinner = dinner * weight[:, None]
        tl.store(inner_ptr + at, (silu * up).to(kind), mask=is_in)
        tl.store(dh_ptr + h_at, (dinner * up * (sigmoid + silu * (1 - sigmoid))).to(kind), mask=is_in)
        tl.store(dh_ptr + h_at + inner_size, (dinner * silu).to(kind), mask=is_in)
    tl.store(dweight_ptr + n, sums, mask=is_pair)
