"""This module is the first gate of sparse mixtures: the k best of noisy logits, and losses that even them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.nn.balance.variance import importance_loss, load_loss
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan

LEAST = 1e-2
"""Is added to the standard deviation of the noise, which could else fall to nothing and never come back."""


class NoisyTopKGate(Gate):
    """In training, the k largest of W x + N(0, 1) softplus(V x), weighted by a softmax of these; else of W x.

    How noisy a logit is, is learned by the token. `losses["importance"]` is the squared coefficient of
    variation of each expert's sum of weights, `losses["load"]` that of the number of tokens it is expected to
    get, which has a gradient since noise decides.

    Source: Shazeer et al., 2017 (arXiv 1701.06538), equations 3 to 11. Differs: W begins small and not at 0,
    so that eval mode makes no ties; a hundredth is added to the softplus; there is no load loss for k = E.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    """

    expert_rows = ("weight_ED", "noise_ED")

    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("NoisyTopKGate", k, num_experts)
        self.weight_ED = new_weight(num_experts, width)
        self.noise_ED = nn.Parameter(torch.zeros(num_experts, width))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; its logits are the noisy ones in training."""
        clean_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        logits_TE = clean_TE
        deviation_TE = self.deviation(x_TD) if self.training else None
        if deviation_TE is not None:
            logits_TE = clean_TE + deviation_TE * torch.randn_like(clean_TE)
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        weights_TK = normalised(weights_TK)
        losses = {}
        if deviation_TE is not None:
            weights_TE = torch.zeros_like(scores_TE).scatter(1, indices_TK, weights_TK)
            losses["importance"] = importance_loss(weights_TE, mask_T=mask_T)
            if self.k < self.num_experts:
                losses["load"] = load_loss(clean_TE, logits_TE, deviation_TE, self.k, mask_T=mask_T)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def deviation(self, x_TD: Tensor) -> Tensor:
        """Return the standard deviation (T, E) of each logit's noise."""
        return functional.softplus(fp32_logits(x_TD, self.noise_ED)) + LEAST
