"""This module assigns tokens to experts in exactly equal numbers, at the greatest total score.

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

    If E does not divide T, some experts have one token less. `tolerance` is the increment of the last round
    of bids, as a share of the range of scores: the total is within T times it of the best. Raises
    `InputError` for scores that are not finite.
    """
    check_number("assign: tolerance", tolerance, low=0.0, allow_low=False)
    if scores_TE.ndim != 2 or not bool(torch.isfinite(scores_TE).all()):
        raise InputError(sentence("assign: scores_TE", allowed="finite numbers (T, E)", got=scores_TE.shape))
    num_tokens, num_experts = scores_TE.shape
    places = -(-num_tokens // num_experts)
    # Tokens that do not care fill the last places.
    s_TE = torch.nn.functional.pad(scores_TE.double(), (0, 0, 0, places * num_experts - num_tokens))
    price_E = s_TE.new_zeros(num_experts)
    spread = float(s_TE.max() - s_TE.min()) if s_TE.numel() else 0.0
    experts_T = torch.zeros(len(s_TE), dtype=torch.long, device=s_TE.device)
    if not s_TE.numel() or num_experts == 1:
        return Assignment(experts_T=experts_T[:num_tokens], price_E=price_E, gap=0.0)
    last = max(spread, 1e-12) * tolerance
    increment = max(spread / 4, last)
    while True:
        experts_T, price_E = _auction(s_TE, price_E, places, increment)
        if increment <= last:
            break
        increment = max(increment / SHRINK, last)
    total = s_TE.gather(1, experts_T[:, None]).sum()
    bound = (s_TE - price_E).amax(dim=1).sum() + places * price_E.sum()
    return Assignment(experts_T=experts_T[:num_tokens], price_E=price_E, gap=float(bound - total))


def _auction(s_TE: Tensor, start_E: Tensor, places: int, increment: float) -> tuple[Tensor, Tensor]:
    """Return (experts_T, price_E): every token is within `increment` of the best that the prices offer it."""
    num_tokens = len(s_TE)
    expert_T = torch.full((num_tokens,), -1, dtype=torch.long, device=s_TE.device)
    bid_T = s_TE.new_full((num_tokens,), -torch.inf)
    price_E = start_E.clone()
    while bool((free_N := (expert_T < 0).nonzero().flatten()).numel()):
        value_N2, choice_N2 = (s_TE[free_N] - price_E).topk(2, dim=-1)
        expert_T[free_N] = choice_N2[:, 0]
        bid_T[free_N] = price_E[choice_N2[:, 0]] + value_N2[:, 0] - value_N2[:, 1] + increment
        for e in sorted(set(choice_N2[:, 0].tolist())):
            holders = (expert_T == e).nonzero().flatten()
            if len(holders) < places:
                continue
            order = bid_T[holders].argsort(descending=True, stable=True)
            expert_T[holders[order[places:]]] = -1
            price_E[e] = bid_T[holders[order[places - 1]]]
    return expert_T, price_E
