"""This module holds the Triton kernels that read and write rows of pairs, beside experts' products.

Each is bound by memory: it reads what it needs once. Axes: N pairs, T tokens, K columns,
E experts, I inner size.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("num_pairs",))
def gather_kernel(
    x_ptr, y_ptr, rows_ptr, num_pairs, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[n] = x[rows[n]]."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_pair = n < num_pairs
    is_read = is_pair[:, None] & (d < width)[None, :]
    row = tl.load(rows_ptr + n, mask=is_pair, other=0).to(tl.int64)
    x = tl.load(x_ptr + row[:, None] * width + d[None, :], mask=is_read, other=0.0)
    tl.store(y_ptr + n[:, None].to(tl.int64) * width + d[None, :], x, mask=is_read)


@triton.jit(do_not_specialize=("num_tokens", "num_columns"))
def combine_kernel(
    x_ptr, y_ptr, place_ptr, weight_ptr, bias_ptr, expert_ptr, num_tokens, num_columns, width,
    WEIGH: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[t] = sum over a token's pairs, in the order of its columns, of weight * (x + bias); -1 is no pair."""
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_token, is_width = t < num_tokens, d < width
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for column in range(num_columns):
        n = tl.load(place_ptr + t.to(tl.int64) * num_columns + column, mask=is_token, other=-1).to(tl.int64)
        is_pair = n >= 0
        is_read = is_pair[:, None] & is_width[None, :]
        x = tl.load(x_ptr + n[:, None] * width + d[None, :], mask=is_read, other=0.0).to(tl.float32)
        if BIAS:
            expert = tl.load(expert_ptr + n, mask=is_pair, other=0)
            bias_at = bias_ptr + expert[:, None] * width + d[None, :]
            x += tl.load(bias_at, mask=is_read, other=0.0).to(tl.float32)
        if WEIGH:
            x = x * tl.load(weight_ptr + n, mask=is_pair, other=0.0).to(tl.float32)[:, None]
        total += x
    place = t[:, None].to(tl.int64) * width + d[None, :]
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), mask=is_token[:, None] & is_width[None, :])


@triton.jit(do_not_specialize=("num_pairs",))
def swiglu_backward_kernel(
    h_ptr, dinner_ptr, weight_ptr, inner_ptr, dh_ptr, dweight_ptr, num_pairs, inner_size,
    ROWS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Of some pairs: weight times inner states, the gradient in h, and <dinner, inner>, that in weight."""
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
        tl.store(inner_ptr + at, (silu * up * weight[:, None]).to(kind), mask=is_in)
        tl.store(dh_ptr + h_at, (dinner * up * (sigmoid + silu * (1 - sigmoid))).to(kind), mask=is_in)
        tl.store(dh_ptr + h_at + inner_size, (dinner * silu).to(kind), mask=is_in)
    tl.store(dweight_ptr + n, sums, mask=is_pair)


@triton.jit(do_not_specialize=("num_pairs",))
def spread_kernel(
    dy_ptr, x_ptr, rows_ptr, weight_ptr, bias_ptr, expert_ptr, dx_ptr, dweight_ptr, num_pairs, width,
    OUT: tl.constexpr, SUM: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradients of `combine_kernel`: dx[n] = weight dy[token], dweight[n] = <dy[token], x[n] + bias>."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_pair = n < num_pairs
    token = tl.load(rows_ptr + n, mask=is_pair, other=0).to(tl.int64)
    weight = tl.load(weight_ptr + n, mask=is_pair, other=0.0).to(tl.float32)
    sums = tl.zeros((ROWS,), dtype=tl.float32)
    expert = tl.load(expert_ptr + n, mask=is_pair, other=0)
    for d0 in range(0, width, WIDTH):
        d = d0 + tl.arange(0, WIDTH)
        is_in = is_pair[:, None] & (d < width)[None, :]
        at = n[:, None].to(tl.int64) * width + d[None, :]
        dy = tl.load(dy_ptr + token[:, None] * width + d[None, :], mask=is_in, other=0.0).to(tl.float32)
        if SUM:
            x = tl.load(x_ptr + at, mask=is_in, other=0.0).to(tl.float32)
            if BIAS:
                bias_at = bias_ptr + expert[:, None] * width + d[None, :]
                x += tl.load(bias_at, mask=is_in, other=0.0).to(tl.float32)
            sums += tl.sum(dy * x, axis=1)
        if OUT:
            tl.store(dx_ptr + at, (dy * weight[:, None]).to(dx_ptr.dtype.element_ty), mask=is_in)
    if SUM:
        tl.store(dweight_ptr + n, sums, mask=is_pair)


@triton.jit(do_not_specialize=("num_pairs",))
def bias_kernel(
    x_ptr, bias_ptr, expert_ptr, y_ptr, num_pairs, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[n] = x[n] + bias of the pair's expert."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_pair = n < num_pairs
    is_in = is_pair[:, None] & (d < width)[None, :]
    expert = tl.load(expert_ptr + n, mask=is_pair, other=0)
    at = n[:, None].to(tl.int64) * width + d[None, :]
    x = tl.load(x_ptr + at, mask=is_in, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + expert[:, None] * width + d[None, :], mask=is_in, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, x.to(y_ptr.dtype.element_ty), mask=is_in)


@triton.jit
def expert_sum_kernel(
    x_ptr, offsets_ptr, y_ptr, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[e] = sum of the expert's rows; 0 for an expert without any."""
    expert = tl.program_id(0)
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_width = d < width
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for n0 in range(start, end, ROWS):
        n = n0 + tl.arange(0, ROWS)
        is_in = (n < end)[:, None] & is_width[None, :]
        at = n[:, None].to(tl.int64) * width + d[None, :]
        total += tl.load(x_ptr + at, mask=is_in, other=0.0).to(tl.float32)
    tl.store(y_ptr + expert.to(tl.int64) * width + d, tl.sum(total, axis=0), mask=is_width)
