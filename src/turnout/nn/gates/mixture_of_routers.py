"""This module is the gate of gates: several choose together, and another one says whom to believe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class MixtureOfRoutersGate(Gate):
    """s = sum_i w_i softmax(R_i x), w = softmax(M x) over the best sub-gates; then the k largest s.

    Weights are divided by their sum. One sub-gate is an ordinary softmax gate.

    Source: S77, Mixture of Routers (arXiv 2503.23362), read in its abstract and a summary. Differs: the kept
    w are divided by their sum, so that s adds up to 1.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    num_gates
        Sub-gates.
    kept
        Sub-gates that a token listens to.
    """

    expert_rows = ("weight_GED",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, num_gates: int = 4, kept: int = 2
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("MixtureOfRoutersGate", k, num_experts)
        self.num_gates = check_count("MixtureOfRoutersGate: num_gates", num_gates)
        self.kept = check_count("MixtureOfRoutersGate: kept", kept, high=num_gates)
        self.weight_GED = nn.Parameter(torch.randn(num_gates, num_experts, width) * 0.02)
        self.main_GD = new_weight(num_gates, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; its logits are the logarithms of s."""
        trust_TG = fp32_logits(x_TD, self.main_GD).softmax(dim=-1)
        best_TK, kept_TK = trust_TG.topk(self.kept, dim=-1)
        best_TK = normalised(best_TK)
        trust_TG = torch.zeros_like(trust_TG).scatter(1, kept_TK, best_TK)
        logits_TGE = fp32_logits(x_TD, self.weight_GED.flatten(0, 1))
        logits_TGE = logits_TGE.reshape(-1, self.num_gates, self.num_experts)
        scores_TE = (trust_TG[..., None] * logits_TGE.softmax(dim=-1)).sum(dim=1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=scores_TE.clamp(min=torch.finfo(torch.float32).tiny).log(),
            scores_TE=scores_TE,
        )
