"""This module finds the experts with the largest scores, on a GPU by a kernel made for the sizes of gates."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.nn.operation import define
from turnout.nn.probe import Probe

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
    best_TK: Tensor = _operation(score_TE, k)
    return best_TK


def _best(score_TE: Tensor, k: int) -> Tensor:
    import triton

    from turnout.nn.best_kernel import best_kernel

    num_tokens, num_experts = score_TE.shape
    best_TK = _output(score_TE, k)
    columns = triton.next_power_of_2(num_experts)
    rows = max(1024 // columns, 1)
    if num_tokens:
        grid = (triton.cdiv(num_tokens, rows),)
        best_kernel[grid](
            score_TE.contiguous(), best_TK, num_tokens, num_experts, K=k, ROWS=rows, COLUMNS=columns
        )
    return best_TK


def _output(score_TE: Tensor, k: int) -> Tensor:
    return score_TE.new_empty(score_TE.shape[0], k, dtype=torch.int64)


_operation = define("best_by_kernel(Tensor score_TE, int k) -> Tensor", _best, _output)


@torch.inference_mode()
def _is_right(device: torch.device) -> bool:
    """Whether Triton is there and finds what `torch.topk` finds."""
    score_TE = torch.arange(512.0, device=device).view(32, 16).sin()
    return torch.equal(best_by_kernel(score_TE, 3), torch.topk(score_TE, 3, dim=-1)[1])


_works = Probe(_is_right, otherwise=False)
