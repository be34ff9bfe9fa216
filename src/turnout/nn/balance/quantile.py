"""This module balances experts by thresholds: who has too much gives way at the score that leaves its share.

Source: quantile balancing, the option `quantile_balancing` of Megatron-Core's router (2026): one round of
dual coordinate descent on the problem of `dual`, all experts at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.plan import matrix


@torch.no_grad()
def quantile_prices(scores_TE: Tensor, price_E: Tensor, k: int) -> Tensor:
    """Return new prices (E,), at which overloaded experts keep C = T k / E tokens if the others stay.

    Tokens choose the k largest score - price; alpha_t is the (k + 1)-th of them. A token that chose expert e
    keeps it at a new price p while s_te - p > alpha_t, so the (C + 1)-th largest s_te - alpha_t is the price.
    An expert with too few tokens keeps its price or lowers it. The mean is taken away, since differences
    alone matter. Raises `InputError` unless C is whole and k < E.
    """
    matrix("quantile_prices: scores_TE", scores_TE)
    num_tokens, num_experts = scores_TE.shape
    if price_E.shape != (num_experts,):
        got = tuple(price_E.shape)
        raise ShapeError(sentence("quantile_prices: price_E", allowed=f"(E,) = ({num_experts},)", got=got))
    if not 1 <= k < num_experts or num_tokens * k % num_experts:
        sizes = f"T = {num_tokens}, k = {k}, E = {num_experts}"
        raise InputError(sentence("quantile_prices", allowed="k < E, and E divides T k", got=sizes))
    s_TE = scores_TE.float()
    alpha_T = (s_TE - price_E).topk(k + 1, dim=-1)[0][:, k]
    wanted = num_tokens * k // num_experts
    found_E = (s_TE - alpha_T[:, None]).topk(wanted + 1, dim=0)[0][wanted]
    return found_E - found_E.mean()
