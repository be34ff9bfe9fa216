"""This module assigns tokens to experts in numbers as equal as can be, at the greatest total score.

Source: S183, BASE layers (arXiv 2103.16716), section 3.1; Bertsekas, 1992, the auction algorithm for similar
objects, with bids in parallel and a shrinking increment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_number

SHRINK = 5.0
"""By how much the increment shrinks from one round of the auction to the next."""

SMALLEST = 1e-12
"""The smallest increment, as a share of the range of scores: rounding would swallow others."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Who got which expert, with a certificate.

    `gap` bounds how much more any assignment of equal numbers could score in all: the dual value at `price_E`
    minus the total score. Prices are those of `docs/prices.md`: what an expert's last place costs, in score.
    """

    experts_T: Tensor
    price_E: Tensor
    gap: float


@torch.no_grad()
def assign(scores_TE: Tensor, *, tolerance: float = 1e-4) -> Assignment:
    """Return the assignment of each token to one expert, T / E tokens an expert, of the greatest total score.

    If E does not divide T, T mod E experts have one token more than the others. `tolerance` is the increment
    of the last round of bids, as a share of the range of scores, `SMALLEST` at least: the total is within
    (T + E) times it of the best. Raises `InputError` for scores that are not finite.
    """
    check_number("assign: tolerance", tolerance, low=0.0, allow_low=False)
    if scores_TE.ndim != 2 or not bool(torch.isfinite(scores_TE).all()):
        raise InputError(sentence("assign: scores_TE", allowed="finite numbers (T, E)", got=scores_TE.shape))
    num_tokens, num_experts = scores_TE.shape
    s_TE = scores_TE.double()
    price_E = s_TE.new_zeros(num_experts)
    if not s_TE.numel() or num_experts == 1:
        experts_T = torch.zeros(num_tokens, dtype=torch.long, device=s_TE.device)
        return Assignment(experts_T=experts_T, price_E=price_E, gap=0.0)
    # In [0, 1]: a bid that is small beside the scores would be lost in their rounding. Halves, since the
    # range of numbers is larger than the largest number.
    half_TE = s_TE / 2 - s_TE.min() / 2
    unit = float(half_TE.max())
    s_TE = half_TE / unit if unit else half_TE
    s_RC, places_C = _with_spare(s_TE)
    price_C = s_RC.new_zeros(len(places_C))
    last = max(tolerance, SMALLEST)
    increment = max(0.25, last)
    while True:
        column_R, price_C = _auction(s_RC, price_C, places_C, increment)
        if increment <= last:
            break
        increment = max(increment / SHRINK, last)
    experts_T, price_E = column_R[:num_tokens] % num_experts, price_C.view(-1, num_experts).amin(dim=0)
    total = s_TE.gather(1, experts_T[:, None]).sum()
    floor, more = divmod(num_tokens, num_experts)
    # What all places are worth; where some stay free, those are the cheapest experts'.
    worth = floor * price_E.sum() + price_E.topk(more)[0].sum()
    bound = (s_TE - price_E).amax(dim=1).sum() + worth
    # A bound below what was found is rounding.
    gap = max(float(bound - total), 0.0)
    return Assignment(experts_T=experts_T, price_E=2 * unit * price_E, gap=2 * unit * gap)


def _with_spare(s_TE: Tensor) -> tuple[Tensor, list[int]]:
    """Return scores (R, C) and the places of each column, as many as there are rows in all.

    Where E does not divide T, a second column of each expert is the one place that may stay free, and further
    rows, which score 0 there and can't have another, fill those that do.
    """
    num_tokens, num_experts = s_TE.shape
    floor, more = divmod(num_tokens, num_experts)
    if not more:
        return s_TE, [floor] * num_experts
    spare_ZE = s_TE.new_zeros(num_experts - more, num_experts)
    last_RE = torch.cat([s_TE, spare_ZE])
    if not floor:
        return last_RE, [1] * num_experts
    first_RE = torch.cat([s_TE, spare_ZE - torch.inf])
    return torch.cat([first_RE, last_RE], dim=1), [floor] * num_experts + [1] * num_experts


def _auction(s_RC: Tensor, start_C: Tensor, places_C: list[int], increment: float) -> tuple[Tensor, Tensor]:
    """Return (column_R, price_C): every row is within `increment` of the best that the prices offer it."""
    column_R = torch.full((len(s_RC),), -1, dtype=torch.long, device=s_RC.device)
    bid_R = s_RC.new_full((len(s_RC),), -torch.inf)
    price_C = start_C.clone()
    while bool((free_N := (column_R < 0).nonzero().flatten()).numel()):
        value_N2, choice_N2 = (s_RC[free_N] - price_C).topk(2, dim=-1)
        column_R[free_N] = choice_N2[:, 0]
        bid_R[free_N] = price_C[choice_N2[:, 0]] + value_N2[:, 0] - value_N2[:, 1] + increment
        for c in sorted(set(choice_N2[:, 0].tolist())):
            holders = (column_R == c).nonzero().flatten()
            if len(holders) < places_C[c]:
                continue
            order = bid_R[holders].argsort(descending=True, stable=True)
            column_R[holders[order[places_C[c] :]]] = -1
            price_C[c] = bid_R[holders[order[places_C[c] - 1]]]
    return column_R, price_C
