"""This module finds the experts with the largest scores, on a GPU by a kernel made for the sizes of gates."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from turnout.nn.operation import current

MANY_ROWS = 256
"""Fewer rows are one short launch whoever does it."""

MOST = 16
"""Up to so many places are worth one look at all scores each."""

WIDEST = 1024
"""A row of so many scores stays in registers."""


def best_of(score_TE: Tensor, k: int) -> Tensor:
    """Return the places (T, k) of the k largest scores, the largest first; who wins a tie is left open."""
    num_tokens, num_experts = score_TE.shape
    is_ours = (
        score_TE.device.type == "cuda"
        and score_TE.dtype == torch.float32
        and num_tokens >= MANY_ROWS
        and k <= MOST
        and num_experts <= WIDEST
        and _works(score_TE.device)
    )
    return best_by_kernel(score_TE.detach(), k) if is_ours else torch.topk(score_TE, k, dim=-1)[1]


def best_by_kernel(score_TE: Tensor, k: int) -> Tensor:
    """Return what `best_of` does; needs Triton, and a GPU or its interpreter."""
    import triton

    from turnout.nn.best_kernel import best_kernel

    num_tokens, num_experts = score_TE.shape
    best_TK = torch.empty(num_tokens, k, dtype=torch.int64, device=score_TE.device)
    columns = triton.next_power_of_2(num_experts)
    rows = max(1024 // columns, 1)
    if num_tokens:
        grid = (triton.cdiv(num_tokens, rows),)
        with current(score_TE):
            best_kernel[grid](
                score_TE.contiguous(), best_TK, num_tokens, num_experts, K=k, ROWS=rows, COLUMNS=columns
            )
    return best_TK


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether Triton is there and finds what `torch.topk` finds."""
    with torch.inference_mode():
        score_TE = torch.arange(512.0, device=device).view(32, 16).sin()
        try:
            found_TK = best_by_kernel(score_TE, 3)
        except Exception:  # noqa: BLE001 - a compiler for kernels may fail in any way, and torch has its own
            return False
        return torch.equal(found_TK, torch.topk(score_TE, 3, dim=-1)[1])
