"""This module is the gate whose tokens choose together with those that are like them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.validation import check_count, check_number
from turnout.nn.gates.attention_aware import averaged
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


class SimilarityAwareGate(Gate):
    """s_t = sum_j S_tj softmax(W x_j), S_t = softmax of (P x_t) . (P x_j) / temperature over earlier tokens.

    The token itself is one of them. With `is_causal_graph=False` all tokens of the item are seen. Then the k
    largest s, divided by their sum. Cost: 2 B S^2 (size + E) operations beside the gate's own.

    Source: S159, similarity-aware SMoE (arXiv 2505.00792), read in its abstract. Differs: the similarity is
    one of projections to `size` numbers, where a full matrix between states is meant to be.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    size
        Numbers in which tokens are compared.
    temperature
        Near 0 each token asks itself alone.
    is_causal_graph
        Whether later tokens are left out.
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        size: int = 16,
        temperature: float = 1.0,
        is_causal_graph: bool = True,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SimilarityAwareGate", k, num_experts)
        self.size = check_count("SimilarityAwareGate: size", size)
        self.temperature = check_number(
            "SimilarityAwareGate: temperature", temperature, low=0.0, allow_low=False
        )
        self.is_causal_graph = is_causal_graph
        self.weight_ED = new_weight(num_experts, width)
        self.project_ZD = nn.Parameter(torch.randn(size, width) / width**0.5)

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """The past, or the sequence."""
        return "past" if self.is_causal_graph else "sequence"

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; its logits are the logarithms of s."""
        own_TE = fp32_logits(x_TD, self.weight_ED).softmax(dim=-1)
        scores_TE = averaged(own_TE, self.graph(x_TD, context), context)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=scores_TE.clamp(min=torch.finfo(torch.float32).tiny).log(),
            scores_TE=scores_TE,
        )

    def graph(self, x_TD: Tensor, context: GateContext) -> Tensor:
        """Return S (B, S, S), padding still in it."""
        z_BSZ = by_item(fp32_logits(x_TD, self.project_ZD), context)
        like_BSS = z_BSZ @ z_BSZ.transpose(1, 2) / self.temperature
        lowest = torch.finfo(like_BSS.dtype).min
        if self.is_causal_graph:
            later_SS = torch.ones_like(like_BSS[0], dtype=torch.bool).triu(1) if len(like_BSS) else None
            like_BSS = like_BSS if later_SS is None else like_BSS.masked_fill(later_SS, lowest)
        if context.mask_BS is not None:
            like_BSS = like_BSS.masked_fill(~context.mask_BS[:, None, :], lowest)
        return like_BSS.softmax(dim=-1)
