"""This module chooses the layers whose gates are rewired, by how sure they were of the context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from turnout.nn.gate_hook import GateHook, Routing

Select = Literal["high", "low"]
Layers = Literal["hard", "soft", "all"]


def confidence(hook: GateHook, routings: Sequence[Routing | None], mask_BT: Tensor) -> Tensor:
    """Return C_BL: minus the mean log probability of the selected experts, averaged over tokens.

    As the paper prints it: C_i = -(1/k) sum_j log p_ij. Mind the sign: the surer a gate, the smaller its C.
    Tokens with mask 0 and tokens without an expert don't count. NaN for a layer that did not run (None).

    Source: S26, arXiv 2510.14853, layer selection; nn.log_probabilities of the family's rule stand for p.
    """
    batch_size, length = mask_BT.shape
    columns = []
    for rule, routing in zip(hook.rules, routings, strict=True):
        if routing is None:
            columns.append(torch.full((batch_size,), torch.nan, device=mask_BT.device))
            continue
        is_pair_TK = routing.indices_TK >= 0
        log_p_TK = rule.log_probabilities(routing.logits_TE).gather(1, routing.indices_TK.clamp(min=0))
        size_T = is_pair_TK.sum(dim=-1)
        surprise_T = -(log_p_TK * is_pair_TK).sum(dim=-1) / size_T.clamp(min=1)
        surprise_BT, has_pair_BT = (
            value_T.view(batch_size, length).to(mask_BT.device) for value_T in (surprise_T, size_T > 0)
        )
        columns.append((surprise_BT * mask_BT).sum(dim=1) / (mask_BT * has_pair_BT).sum(dim=1))
    return torch.stack(columns, dim=1)


def layer_weights(confidence_BL: Tensor, *, layers: Layers, select: Select, fraction: float) -> Tensor:
    """Return by what each item's step in each layer is multiplied, in [0, 1] (B, L).

    `hard`: 1 for the ceil(fraction * L) layers with the highest (`high`) or lowest (`low`) C, else 0. `soft`:
    C / max C for `high`, min C / C for `low`. `all`: 1. A layer that did not run (NaN) has 0.

    Source: S26, arXiv 2510.14853. Differs: the paper says "normalised" and not how.
    """
    if layers == "all":
        return torch.ones_like(confidence_BL)
    is_there_BL = confidence_BL.isfinite()
    sign = 1.0 if select == "high" else -1.0
    if layers == "hard":
        keys_BL = (confidence_BL * sign).masked_fill(~is_there_BL, float("-inf"))
        count = math.ceil(fraction * confidence_BL.shape[1])
        best = keys_BL.topk(count, dim=1)[1]
        return torch.zeros_like(keys_BL).scatter(1, best, 1.0) * is_there_BL
    tiny = torch.finfo(confidence_BL.dtype).tiny
    found_BL = confidence_BL.clamp_min(tiny)
    if select == "high":
        found_BL = found_BL.masked_fill(~is_there_BL, 0.0)
        return found_BL / found_BL.amax(dim=1, keepdim=True)
    found_BL = found_BL.masked_fill(~is_there_BL, float("inf"))
    return found_BL.amin(dim=1, keepdim=True) / found_BL
