"""This module is the attention router of Yuan 2.0: experts look at each other before one is chosen."""

from __future__ import annotations

from torch import Tensor, nn

from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class ExpertAttentionGate(Gate):
    """q, k, v = W_q x, W_k x, W_v x, a number for each expert; logits = softmax(q k^T) v over the experts.

    q k^T is E by E, an attention in which experts are the positions and a head has one number. Then the k
    best by softmax, divided by their sum.

    Source: S48, Yuan 2.0-M32, read in its released model code. Differs: none.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    """

    expert_rows = ("weight_QED",)

    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("ExpertAttentionGate", k, num_experts)
        self.weight_QED = nn.Parameter(new_weight(3 * num_experts, width).reshape(3, num_experts, width))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        query_TE, key_TE, value_TE = fp32_logits(x_TD, self.weight_QED.flatten(0, 1)).chunk(3, dim=-1)
        seen_TEE = (query_TE[:, :, None] * key_TE[:, None, :]).softmax(dim=-1)
        logits_TE = (seen_TEE @ value_TE[..., None])[..., 0]
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )
