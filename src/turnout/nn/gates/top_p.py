"""This module is the gate that takes as many experts as hold a share p of the probability."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.validation import check_number
from turnout.nn.gates.contract import Gate, GateContext, fp32_logits, new_weight, real_mean
from turnout.nn.plan import SparsePlan


class TopPGate(Gate):
    """The fewest experts whose probabilities reach p together, weighted by their probabilities.

    The expert that crosses p is included, so there is one at least. `losses["entropy"]` is the mean entropy
    of the probabilities, in nats: without it a gate learns to spread them, and takes more and more experts.

    Source: dynamic MoE (arXiv 2403.07652), section 3, and its code. Differs: none.

    Parameters
    ----------
    width, num_experts
        D and E.
    p
        In (0, 1]; 1 takes all.
    """

    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, p: float = 0.4) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.p = check_number("TopPGate: p", p, low=0.0, high=1.0, allow_low=False)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        scores_TE = logits_TE.softmax(dim=-1)
        sorted_TE, order_TE = scores_TE.sort(dim=-1, descending=True, stable=True)
        # An expert is taken as long as those before it do not reach p.
        before_TE = sorted_TE.cumsum(dim=-1) - sorted_TE
        is_taken_TE = (before_TE < self.p) if self.p < 1 else torch.ones_like(before_TE, dtype=torch.bool)
        losses = {}
        if self.training:
            entropy_T = -(scores_TE * logits_TE.log_softmax(dim=-1)).sum(dim=-1)
            losses["entropy"] = real_mean(entropy_T, mask_T)
        return SparsePlan.from_choices(
            sorted_TE,
            order_TE,
            num_experts=self.num_experts,
            mask_T=mask_T,
            is_pair_TK=is_taken_TE,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )
