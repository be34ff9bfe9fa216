"""This module holds the Triton kernel that finds the experts with the largest scores.

A row of scores stays in registers while its largest is taken, again and again: one read of the scores and one
write of the places, where a general selection of k from thousands works through bits of every number.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def best_kernel(
    score_TE,
    best_TK,
    num_tokens,
    num_experts,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the places of the K largest scores of each row, the largest first; ties go to the first place.

    A score and its place make one key: the bits of the score, turned so that whole numbers are in their
    order, before the place counted from the end. NaN is larger than all numbers, as `torch.topk` has it.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_C = tl.arange(0, COLUMNS)
    is_there_RC = (row_R[:, None] < num_tokens) & (column_C[None, :] < num_experts)
    offset_R = row_R.to(tl.int64) * num_experts
    score_RC = tl.load(score_TE + offset_R[:, None] + column_C[None, :], mask=is_there_RC, other=0.0)
    bits_RC = score_RC.to(tl.int32, bitcast=True)
    order_RC = tl.where(bits_RC >= 0, bits_RC, bits_RC ^ 0x7FFFFFFF)
    order_RC = tl.where(score_RC == score_RC, order_RC, 0x7FFFFFFF)
    key_RC = (order_RC.to(tl.int64) << 32) + (COLUMNS - 1 - column_C)[None, :].to(tl.int64)
    least = tl.full([1, 1], -0x7FFFFFFFFFFFFFFF, tl.int64)
    key_RC = tl.where(is_there_RC, key_RC, least)
    place_R = best_TK + row_R.to(tl.int64) * K
    for column in tl.static_range(K):
        most_R = tl.max(key_RC, axis=1)
        found_R = COLUMNS - 1 - (most_R & 0xFFFFFFFF)
        tl.store(place_R + column, found_R, mask=row_R < num_tokens)
        key_RC = tl.where(key_RC == most_R[:, None], least, key_RC)
