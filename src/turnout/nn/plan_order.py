"""This module puts the pairs of a plan in the order of experts.

Axes as in `plan`: T tokens, E experts, K columns of a rectangle, N pairs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.late import infinite_if, is_late, refuse_later, sign
from turnout.nn.probe import Probe
from turnout.nn.uncompiled import untraced

SHORT = 64
"""Up to so many pairs are sorted as numbers of Python on a processor, where each launch less counts."""


def ends(experts_N: Tensor, num_experts: int) -> Tensor:
    """Return where each expert's stretch ends (E,), int32."""
    # Without `bincount`, which waits for an accelerator to learn the largest number.
    counts_E = torch.zeros(num_experts, dtype=torch.int32, device=experts_N.device)
    counts_E.index_add_(0, experts_N, torch.ones_like(experts_N, dtype=torch.int32))
    return counts_E.cumsum(0, dtype=torch.int32)


def ranks(keys_N: Tensor, num_keys: int) -> Tensor:
    """Return how many earlier entries have the same key, (N,)."""
    order_N = torch.argsort(keys_N, stable=True)
    starts = torch.zeros(num_keys + 1, dtype=torch.int64, device=keys_N.device)
    starts[1:].index_add_(0, keys_N, torch.ones_like(keys_N))
    starts = starts.cumsum(0)
    rank_N = torch.empty_like(order_N)
    rank_N[order_N] = torch.arange(len(keys_N), device=keys_N.device) - starts[keys_N[order_N]]
    return rank_N


def check_experts(least: int, most: int, num_experts: int) -> None:
    """Raise `InputError` for an expert that is none of 0 to E - 1."""
    for expert in (least, most):
        if not 0 <= expert < num_experts:
            raise InputError(sentence("indices_TK", allowed=f"0 to {num_experts - 1}", got=expert))


@untraced
def _check_sorted(experts_N: Tensor, num_experts: int) -> None:
    check_experts(int(experts_N[0]), int(experts_N[-1]), num_experts)


@untraced
def sorted_short(indices_TK: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (order_N, tokens_N, experts_N, columns_N, offsets_E) of a few choices on a processor.

    Raises `InputError` for an expert that is none of 0 to E - 1.
    """
    num_columns = indices_TK.shape[1]
    chosen = indices_TK.reshape(-1).tolist()
    order = sorted(range(len(chosen)), key=chosen.__getitem__)
    counts = [0] * num_experts
    if chosen:
        check_experts(min(chosen), max(chosen), num_experts)
    for expert in chosen:
        counts[expert] += 1
    # One tensor for all four: each that is made costs as much as a short sum.
    flat = [*order, *(at // num_columns for at in order), *(chosen[at] for at in order)]
    flat += [at % num_columns for at in order]
    order_N, tokens_N, experts_N, columns_N = (
        torch.tensor(flat, dtype=torch.int64).view(4, len(order)).unbind(0)
    )
    offsets_E = torch.tensor(list(itertools.accumulate(counts)), dtype=torch.int32)
    return order_N, tokens_N, experts_N, columns_N, offsets_E


def by_expert(
    indices_TK: Tensor, num_experts: int, kept_TK: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what `sorted_short` does of any number of choices, without those where `kept_TK` is False.

    Raises `InputError` for an expert that is none of 0 to E - 1, on CUDA as `turnout.nn.late` says.
    """
    if indices_TK.is_cuda and kept_TK is None and (sort := counting(num_experts, indices_TK.device)):
        order_N, tokens_N, experts_N, columns_N, offsets_E = sort(
            indices_TK, num_experts, sign(unknown_expert(num_experts), indices_TK.device)
        )
        return order_N, tokens_N, experts_N, columns_N, offsets_E
    if is_late(indices_TK.device) and num_experts < torch.iinfo(torch.int16).max:
        return by_expert_on_gpu(indices_TK, num_experts, kept_TK)
    experts_N, order_N = torch.sort(indices_TK.reshape(-1), stable=True)
    if experts_N.device.type == "cpu" and len(experts_N):
        _check_sorted(experts_N, num_experts)
    if kept_TK is not None:
        kept_N = kept_TK.reshape(-1)[order_N]
        experts_N, order_N = experts_N[kept_N], order_N[kept_N]
    num_columns = max(indices_TK.shape[1], 1)
    offsets_E = ends(experts_N, num_experts)
    return order_N, order_N // num_columns, experts_N, order_N % num_columns, offsets_E


def by_expert_on_gpu(
    indices_TK: Tensor, num_experts: int, kept_TK: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what `by_expert` does, in launches that a GPU is quick at; waits only to learn how many stay.

    Keys of two bytes are sorted in two passes where those of eight take as many, and the ends of the
    experts' stretches are searched for: a hundred thousand additions to a few numbers wait for each other.
    """
    keys_N = indices_TK.reshape(-1).clamp(-1, num_experts)
    if kept_TK is not None:
        # What is left out goes behind all others.
        keys_N = keys_N.masked_fill(~kept_TK.reshape(-1), num_experts)
    sorted_N, order_N = torch.sort(keys_N.to(torch.int16), stable=True)
    # How many are below each expert, and how many below E.
    bounds = torch.arange(num_experts + 1, dtype=torch.int16, device=sorted_N.device)
    below = torch.searchsorted(sorted_N, bounds, out_int32=True)
    if kept_TK is not None:
        num_kept = int(kept_TK.sum())
        sorted_N, order_N = sorted_N[:num_kept], order_N[:num_kept]
    if len(sorted_N):
        wrong = below[-1] - below[0] != len(sorted_N)
        refuse_later({unknown_expert(num_experts): infinite_if(wrong)})
    num_columns = max(indices_TK.shape[1], 1)
    return order_N, order_N // num_columns, sorted_N.long(), order_N % num_columns, below[1:]


@untraced
@functools.cache
def unknown_expert(num_experts: int) -> Callable[[], InputError]:
    """Return what makes the error, the same function for the same number."""

    def error() -> InputError:
        got = "an expert that is none of them"
        return InputError(sentence("indices_TK", allowed=f"0 to {num_experts - 1}", got=got))

    return error


Sort = Callable[[Tensor, int, Tensor], list[Tensor]]


@torch.inference_mode()
def _sorts(num_experts: int, device: torch.device) -> Sort | None:
    """Return the sort by Triton's kernels, where it is there, takes as many experts, and sorts rightly."""
    from turnout.nn.plan_triton import MOST_EXPERTS, by_counting

    if num_experts > MOST_EXPERTS:
        return None
    chosen_TK = torch.arange(6000, device=device).view(-1, 2) * 7 % 13 % num_experts
    has_unknown = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
    found = by_counting(chosen_TK, num_experts, has_unknown)
    expected = by_expert(chosen_TK.cpu(), num_experts, None)
    is_right = all(map(torch.equal, (part.cpu() for part in found), expected)) and not has_unknown.any()
    return by_counting if is_right else None


counting = Probe(_sorts, otherwise=None)
