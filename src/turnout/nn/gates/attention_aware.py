"""This module is the gate whose tokens choose together with those they look at."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    Sight,
    by_item,
    check_k,
    fp32_logits,
    new_weight,
    normalised,
)
from turnout.nn.plan import SparsePlan


class AttentionAwareGate(Gate):
    """s_t = sum_j A_tj softmax(W x_j): probabilities are averaged by the attention before the layer.

    Tokens that look at the same tokens choose alike, and a choice moves less from step to step. Then the k
    largest, divided by their sum. A is the mean over heads; where the model's attention is causal, so is
    the gate, which sees the past.

    Source: S159, attention-aware SMoE (arXiv 2505.00792), read in its abstract; the equation is a reading.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.

    Needs `GateContext.attention_BSS`, of causal attention.
    """

    sees: Sight = "past"
    needs: ClassVar[frozenset[str]] = frozenset({"attention_BSS"})
    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("AttentionAwareGate", k, num_experts)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; its logits are the logarithms of s."""
        assert context.attention_BSS is not None
        own_TE = fp32_logits(x_TD, self.weight_ED).softmax(dim=-1)
        scores_TE = averaged(own_TE, context.attention_BSS.detach().float(), context)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=scores_TE.clamp(min=torch.finfo(torch.float32).tiny).log(),
            scores_TE=scores_TE,
        )


def averaged(own_TE: Tensor, seen_BSS: Tensor, context: GateContext) -> Tensor:
    """Return the means of probabilities by the weights of each row; padding has no weight but its own.

    Rows are scaled to 1 again. A token that sees only padding keeps its own probabilities.
    """
    own_BSE = by_item(own_TE, context)
    if context.mask_BS is not None:
        both_BSS = context.mask_BS[:, :, None] & context.mask_BS[:, None, :]
        seen_BSS = seen_BSS.masked_fill(~both_BSS, 0.0)
    sums_BS1 = seen_BSS.sum(dim=-1, keepdim=True)
    mixed_BSE = (seen_BSS / torch.where(sums_BS1 > 0, sums_BS1, 1.0)) @ own_BSE
    return torch.where(sums_BS1 > 0, mixed_BSE, own_BSE).reshape(own_TE.shape)
