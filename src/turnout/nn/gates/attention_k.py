"""This module is the gate that gives more experts to tokens at which the attention looks more."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, Sight, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class AttentionKGate(Gate):
    """A token has max(1, ceil(k I / max I)) experts, I the mean attention that it receives in its item.

    A position that more queries could look at receives more by that alone, so I counts only queries that
    can: those with any attention at it. Then the best by softmax, divided by their sum. Later queries look
    back, so the gate sees the sequence.

    Source: S56, DA-MoE (read in its abstract; the formula of the count is ours).

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of the most important token of an item.

    Needs `GateContext.attention_BSS`.
    """

    expert_rows = ("weight_ED",)
    sees: Sight = "sequence"
    needs: ClassVar[frozenset[str]] = frozenset({"attention_BSS"})

    def __init__(self, *, width: int, num_experts: int, k: int = 4) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_count("AttentionKGate: k", check_k("AttentionKGate", k, num_experts))
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = logits_TE.softmax(dim=-1)
        best_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        share_T1 = self.importance(context).reshape(-1, 1)
        # A little less, so that rounding does not make one more of a whole number.
        count_T1 = (self.k * share_T1 - 1e-5).ceil().clamp(min=1)
        is_pair_TK = torch.arange(self.k, device=x_TD.device) < count_T1
        best_TK = best_TK * is_pair_TK
        return SparsePlan.from_choices(
            normalised(best_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            is_pair_TK=is_pair_TK,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )

    def importance(self, context: GateContext) -> Tensor:
        """Return I over its largest value in the item, (B, S); padding neither looks nor is looked at."""
        assert context.attention_BSS is not None
        seen_BSS = context.attention_BSS.detach().float()
        if context.mask_BS is not None:
            both_BSS = context.mask_BS[:, :, None] & context.mask_BS[:, None, :]
            seen_BSS = seen_BSS.masked_fill(~both_BSS, 0.0)
        received_BS = seen_BSS.sum(dim=1) / (seen_BSS > 0).sum(dim=1).clamp(min=1)
        if not received_BS.shape[1]:
            return received_BS
        return received_BS / received_BS.amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
