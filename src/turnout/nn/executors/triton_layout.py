"""This module lays out a plan's rows for the Triton kernels: blocks of one expert, and each token's pairs.

Axes: N pairs, T tokens, K columns, E experts, B blocks.
"""

# Triton reads the annotations of a kernel's arguments, so that only `tl.constexpr` may stand there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from turnout.nn.plan import SparsePlan

BLOCKS, PAIRS = 32, 1024
"""Of how many blocks and pairs one program writes."""

EXPERTS = 256
"""So many experts are looked at together: for more a program's registers are too few."""


@triton.jit(do_not_specialize=("num_blocks", "num_pairs", "programs", "num_columns"))
def _layout_kernel(
    offsets_ptr, blocks_ptr, token_ptr, column_ptr, place_ptr,
    num_blocks, num_pairs, programs, num_experts, num_columns,
    ROWS: tl.constexpr, EXPERTS: tl.constexpr, BLOCKS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """The first `programs` write blocks, the others, if there are any, write places."""
    if tl.program_id(0) < programs:
        b = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
        is_block = b < num_blocks
        # A block past the last is nobody's: from 0 to 0, without rows.
        expert, begin = tl.zeros((BLOCKS,), dtype=tl.int32), tl.zeros((BLOCKS,), dtype=tl.int32)
        until = tl.zeros((BLOCKS,), dtype=tl.int32)
        before = 0
        for e0 in range(0, num_experts, EXPERTS):
            e = e0 + tl.arange(0, EXPERTS)
            is_expert = e < num_experts
            end = tl.load(offsets_ptr + e, mask=is_expert, other=0)
            start = tl.load(offsets_ptr + e - 1, mask=is_expert & (e > 0), other=0)
            count = tl.where(is_expert, (end - start + ROWS - 1) // ROWS, 0)
            through = before + tl.cumsum(count, axis=0)
            first = through - count
            is_its = (first[None, :] <= b[:, None]) & (b[:, None] < through[None, :])
            row = start[None, :] + (b[:, None] - first[None, :]) * ROWS
            expert += tl.sum(tl.where(is_its, e[None, :], 0), axis=1)
            begin += tl.sum(tl.where(is_its, row, 0), axis=1)
            until += tl.sum(tl.where(is_its, end[None, :], 0), axis=1)
            before += tl.sum(count, axis=0)
        tl.store(blocks_ptr + b, expert, mask=is_block)
        tl.store(blocks_ptr + num_blocks + b, begin, mask=is_block)
        tl.store(blocks_ptr + 2 * num_blocks + b, until, mask=is_block)
        if tl.program_id(0) == 0:
            tl.store(blocks_ptr + 3 * num_blocks, before)
    else:
        n = (tl.program_id(0) - programs) * PAIRS + tl.arange(0, PAIRS)
        is_pair = n < num_pairs
        token = tl.load(token_ptr + n, mask=is_pair, other=0)
        column = tl.load(column_ptr + n, mask=is_pair, other=0)
        tl.store(place_ptr + token * num_columns + column, n, mask=is_pair)


def lay_out(
    tokens_N: Tensor, columns_N: Tensor, offsets_E: Tensor, *, num_tokens: int, num_columns: int, rows: int
) -> tuple[Tensor, Tensor]:
    """Return the blocks, as `blocks_of` does, and the places (T, K), int32; waits for no accelerator.

    A place is which pair stands in a token's column, -1 for none.
    """
    num_pairs = len(tokens_N)
    place_TK = _nowhere(num_pairs, num_tokens, num_columns, offsets_E.device)
    return _launch(offsets_E, num_pairs, rows, (tokens_N, columns_N, place_TK)), place_TK


def blocks_of(offsets_E: Tensor, *, num_pairs: int, rows: int) -> Tensor:
    """Return the blocks of some pairs (3 B + 1,), int32; waits for no accelerator.

    They are experts, starts and ends of B blocks of `rows` pairs, the most that there may be, and how many of
    them have any; those come first.
    """
    return _launch(offsets_E, num_pairs, rows, None)


def _launch(
    offsets_E: Tensor, num_pairs: int, rows: int, places: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    num_experts = offsets_E.shape[0]
    num_blocks = -(-num_pairs // rows) + num_experts
    blocks = torch.empty(3 * num_blocks + 1, dtype=torch.int32, device=offsets_E.device)
    programs = -(-num_blocks // BLOCKS)
    others = 0 if places is None else -(-num_pairs // PAIRS)
    tokens_N, columns_N, place_TK = (blocks, blocks, blocks) if places is None else places
    _layout_kernel[(programs + others,)](
        offsets_E, blocks, tokens_N, columns_N, place_TK,
        num_blocks, num_pairs, programs, num_experts, 0 if places is None else place_TK.shape[1],
        ROWS=rows, EXPERTS=min(EXPERTS, max(16, 1 << (num_experts - 1).bit_length())),
        BLOCKS=BLOCKS, PAIRS=PAIRS,
    )  # fmt: skip
    return blocks


def places(tokens_N: Tensor, columns_N: Tensor, *, num_tokens: int, num_columns: int) -> Tensor:
    """Return the places of `lay_out` alone."""
    num_pairs = len(tokens_N)
    place_TK = _nowhere(num_pairs, num_tokens, num_columns, tokens_N.device)
    if num_pairs:
        _layout_kernel[(-(-num_pairs // PAIRS),)](
            place_TK, place_TK, tokens_N, columns_N, place_TK, 0, num_pairs, 0, 0, num_columns,
            ROWS=16, EXPERTS=16, BLOCKS=BLOCKS, PAIRS=PAIRS,
        )  # fmt: skip
    return place_TK


def lying(plan: SparsePlan) -> SparsePlan:
    """Return the plan with fields whose numbers lie side by side, as the kernels read them."""
    names = ("tokens_N", "experts_N", "columns_N", "weights_N", "offsets_E")
    given = {name: getattr(plan, name) for name in names}
    if all(value.is_contiguous() for value in given.values()):
        return plan
    return replace(plan, **{name: value.contiguous() for name, value in given.items()})


def _nowhere(num_pairs: int, num_tokens: int, num_columns: int, device: torch.device) -> Tensor:
    """Return places (T, K) that hold -1, or anything where all of them will be written."""
    place_TK = torch.empty(num_tokens, num_columns, dtype=torch.int32, device=device)
    return place_TK if num_pairs == num_tokens * num_columns else place_TK.fill_(-1)
