"""This module sorts the pairs of a plan by expert, by two Triton kernels where torch needs a dozen launches.

A counting sort, stable: how many of each expert a block of pairs has, then each pair's place. Axes: N pairs,
T tokens, E experts, K columns, B blocks of pairs.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from turnout.nn.operation import define

MOST_EXPERTS = 512
"""Beyond it the counts of a block fill a program's registers."""
BLOCK = 1024
"""Pairs of a program."""


@triton.jit(do_not_specialize=("num_pairs",))
def _count_kernel(
    expert_ptr, counts_ptr, sign_ptr, num_pairs, num_experts,
    EXPERTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_pair = at < num_pairs
    expert = tl.load(expert_ptr + at, mask=is_pair, other=0)
    is_unknown = (expert < 0) | (expert >= num_experts)
    tl.store(sign_ptr + tl.zeros((BLOCK,), tl.int32), is_unknown.to(tl.int32), mask=is_unknown)
    # Counted for some expert, so that no place stays unwritten.
    expert = tl.where(is_unknown, 0, expert).to(tl.int32)
    counts = tl.histogram(expert, EXPERTS, mask=is_pair)
    tl.store(counts_ptr + tl.program_id(0) * EXPERTS + tl.arange(0, EXPERTS), counts)


@triton.jit(do_not_specialize=("num_pairs", "num_blocks", "num_columns"))
def _place_kernel(
    expert_ptr, counts_ptr, offsets_ptr, order_ptr, token_ptr, sorted_ptr, column_ptr,
    num_pairs, num_blocks, num_experts, num_columns,
    EXPERTS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    own = tl.program_id(0)
    e = tl.arange(0, EXPERTS)
    total, before = tl.zeros((EXPERTS,), dtype=tl.int32), tl.zeros((EXPERTS,), dtype=tl.int32)
    for b0 in range(0, num_blocks, CHUNK):
        b = (b0 + tl.arange(0, CHUNK))[:, None]
        counts = tl.load(counts_ptr + b * EXPERTS + e[None, :], mask=b < num_blocks, other=0)
        total += tl.sum(counts, axis=0)
        before += tl.sum(tl.where(b < own, counts, 0), axis=0)
    ends = tl.cumsum(total, axis=0)
    if own == 0:
        tl.store(offsets_ptr + e, ends, mask=e < num_experts)
    # Where a pair goes: its place among the block's pairs in order, and how far its expert's are from there.
    counts = tl.load(counts_ptr + own * EXPERTS + e)
    shift = (ends - total + before) - (tl.cumsum(counts, axis=0) - counts)
    within = tl.arange(0, BLOCK)
    at = own * BLOCK + within
    expert = tl.load(expert_ptr + at, mask=at < num_pairs, other=0)
    expert = tl.where((expert < 0) | (expert >= num_experts), 0, expert).to(tl.int32)
    # What is no pair comes last.
    key = tl.sort(tl.where(at < num_pairs, expert, EXPERTS) * BLOCK + within)
    expert, at = key // BLOCK, own * BLOCK + key % BLOCK
    is_pair = expert < EXPERTS
    place = within + tl.gather(shift, tl.where(is_pair, expert, 0), axis=0)
    tl.store(order_ptr + place, at.to(tl.int64), mask=is_pair)
    tl.store(token_ptr + place, (at // num_columns).to(tl.int64), mask=is_pair)
    tl.store(column_ptr + place, (at % num_columns).to(tl.int64), mask=is_pair)
    tl.store(sorted_ptr + place, expert.to(tl.int64), mask=is_pair)


def _by_counting(indices_TK: Tensor, num_experts: int, sign: Tensor) -> list[Tensor]:
    found = _outputs(indices_TK, num_experts, sign)
    order_N, tokens_N, experts_N, columns_N, offsets_E = found
    chosen_N, num_pairs = indices_TK.contiguous().view(-1), indices_TK.numel()
    width, num_blocks = max(16, 1 << (num_experts - 1).bit_length()), -(-num_pairs // BLOCK)
    if not num_pairs:
        offsets_E.zero_()
        return found
    counts_BE = offsets_E.new_empty(num_blocks, width)
    _count_kernel[(num_blocks,)](
        chosen_N, counts_BE, sign, num_pairs, num_experts, EXPERTS=width, BLOCK=BLOCK
    )
    _place_kernel[(num_blocks,)](
        chosen_N, counts_BE, offsets_E, order_N, tokens_N, experts_N, columns_N,
        num_pairs, num_blocks, num_experts, indices_TK.shape[1],
        EXPERTS=width, BLOCK=BLOCK, CHUNK=max(1, 4096 // width), num_warps=8,
    )  # fmt: skip
    return found


def _outputs(indices_TK: Tensor, num_experts: int, _sign: Tensor) -> list[Tensor]:
    of_pairs = [indices_TK.new_empty(indices_TK.numel(), dtype=torch.int64) for _ in range(4)]
    return [*of_pairs, indices_TK.new_empty(num_experts, dtype=torch.int32)]


_operation = define(
    "by_counting(Tensor indices_TK, int num_experts, Tensor(a!) sign) -> Tensor[]", _by_counting, _outputs
)


def by_counting(indices_TK: Tensor, num_experts: int, sign: Tensor) -> list[Tensor]:
    """Return [order_N, tokens_N, experts_N, columns_N, offsets_E] of any number of choices.

    All int64 but the ends of experts, int32. `sign` (1,) is set where there is an expert that is none of 0 to
    E - 1; such a pair stands among those of expert 0.
    """
    found: list[Tensor] = _operation(indices_TK, num_experts, sign)
    return found
