"""This module lets each expert choose its tokens, so that all experts have as many."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from turnout.core.validation import check_choice
from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.gates.contract import Gate, GateContext, Sight, by_item, check_k, fp32_logits, new_weight
from turnout.nn.plan import SparsePlan

ChoiceWeight = Literal["score", "choosers"]
WEIGHTS: tuple[ChoiceWeight, ...] = ("score", "choosers")
ChoiceScore = Literal["softmax", "sinkhorn"]
SCORES: tuple[ChoiceScore, ...] = ("softmax", "sinkhorn")


class ExpertChoiceGate(Gate):
    """Each expert takes the C tokens of an item that score highest for it, C = S k / E; balance is exact.

    S = softmax(W x) over the experts; weight S_te. A token has as many experts as choose it, perhaps none.
    With `score="sinkhorn"` S is the transport plan of the item, whose columns add up to S / E too, so that
    fewer tokens are left to nobody. An item needs all of its tokens for the choice, so the gate sees the
    sequence and refuses decoding.

    Source: Expert Choice (arXiv 2202.09368), known from S252's code; S74, Routers in Vision MoE (read in its
    abstract), compares it with choice by tokens. Differs: per item, not per batch; C is rounded down and at
    least 1.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token on average.
    weight
        `score`, or `choosers`: a softmax over the experts that chose the token, so that a token's weights add
        up to 1.
    score
        `softmax` or `sinkhorn`.
    """

    sees: Sight = "sequence"
    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        weight: ChoiceWeight = "score",
        score: ChoiceScore = "softmax",
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("ExpertChoiceGate", k, num_experts)
        check_choice("ExpertChoiceGate: weight", weight, WEIGHTS)
        check_choice("ExpertChoiceGate: score", score, SCORES)
        self.weight, self.score = weight, score
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        k_B = logits_TE.new_full((context.num_items,), float(self.k))
        scores_TE = _transport(logits_TE, context) if self.score == "sinkhorn" else logits_TE.softmax(dim=-1)
        return choose_tokens(logits_TE, scores_TE, k_B, context, weight=self.weight)


def _transport(logits_TE: Tensor, context: GateContext) -> Tensor:
    """Return each item's transport plan, (T, E): rows add up to 1 and columns to S / E; 0 at padding."""
    masks = [None] * context.num_items if context.mask_BS is None else list(context.mask_BS)
    items = by_item(logits_TE, context)
    return torch.cat([sinkhorn(item, mask_T=mask) for item, mask in zip(items, masks, strict=True)])


def choose_tokens(
    logits_TE: Tensor, scores_TE: Tensor, k_B: Tensor, context: GateContext, *, weight: ChoiceWeight
) -> SparsePlan:
    """Return the plan in which each expert takes max(1, S k / E) tokens of an item, k for each item.

    S counts no padding. Of equal scores the earlier token is taken.
    """
    num_tokens, num_experts = logits_TE.shape
    mask_T = context.mask_T()
    rank_BSE = by_item(scores_TE.detach(), context)
    if context.mask_BS is not None:
        rank_BSE = rank_BSE.masked_fill(~context.mask_BS[..., None], -1.0)
    room_B = room_of(k_B, rank_BSE, context)
    order_BSE = rank_BSE.argsort(dim=1, descending=True, stable=True)
    place_S = torch.arange(rank_BSE.shape[1], device=logits_TE.device, dtype=k_B.dtype)
    is_taken_BSE = (place_S[None, :, None] < room_B[:, None, None]).expand_as(order_BSE)
    is_pair_BSE = torch.zeros_like(order_BSE, dtype=torch.bool).scatter(1, order_BSE, is_taken_BSE)
    is_pair_TE = is_pair_BSE.reshape(num_tokens, num_experts)
    weights_TE = scores_TE
    if weight == "choosers":
        open_TE = torch.where(is_pair_TE, logits_TE, torch.finfo(torch.float32).min)
        weights_TE = open_TE.softmax(dim=-1)
    return SparsePlan.from_dense(
        weights_TE,
        is_pair_TE=is_pair_TE,
        mask_T=mask_T,
        logits_TE=logits_TE,
        scores_TE=scores_TE,
        capacity=int(room_B.sum()),
        dropped_E=torch.zeros(num_experts, dtype=torch.long, device=logits_TE.device),
    )


def room_of(k_B: Tensor, value_BSE: Tensor, context: GateContext) -> Tensor:
    """Return C = max(1, S k / E) of each item, rounded down and at most S, (B,); S counts no padding."""
    size_B = torch.full_like(k_B, float(value_BSE.shape[1]))
    if context.mask_BS is not None:
        size_B = context.mask_BS.sum(dim=1).to(k_B)
    # The product first: S k / E is often whole, and must not be rounded below itself.
    return torch.minimum((size_B * k_B / value_BSE.shape[2] + 1e-4).floor().clamp(min=1), size_B)
