"""This module is the gate of AdaMoE: among the experts that may be chosen, some do nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, chosen, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class NullExpertsGate(Gate):
    """The k largest of E + M probabilities; M of them are of null experts, which cost and give nothing.

    So a token has k true experts at most, and perhaps none. Weights are the probabilities of the chosen true
    experts, divided by their sum. `losses["balance"]` is (E + M) sum_i f_i P_i, in which each null expert has
    the mean load of all null experts: tokens are to choose nulls as often as wanted, but no null of its own.

    Source: S243, AdaMoE (arXiv 2406.13233), section 3, and its code. Differs: k is at most E; a
    single k has a gradient, see `normalised`.

    Parameters
    ----------
    width, num_experts
        D and E, the true experts.
    k
        Chosen of both kinds.
    num_null
        M. Their rows begin as copies of the true experts' rows, one after the other.
    """

    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, k: int = 3, num_null: int = 4) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("NullExpertsGate", k, num_experts)
        self.num_null = check_count("NullExpertsGate: num_null", num_null, low=0)
        self.weight_ED = new_weight(num_experts, width)
        if num_null:
            rows_M = torch.arange(num_null) % num_experts
            self.null_MD = nn.Parameter(self.weight_ED.detach()[rows_M].clone())

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        true_TE = fp32_logits(x_TD, self.weight_ED)
        logits_TZ = true_TE
        if self.num_null:
            logits_TZ = torch.cat([true_TE, fp32_logits(x_TD, self.null_MD)], dim=1)
        scores_TZ = logits_TZ.softmax(dim=-1)
        best_TK, indices_TK = scores_TZ.topk(self.k, dim=-1)
        is_true_TK = indices_TK < self.num_experts
        weights_TK = best_TK * is_true_TK
        weights_TK = normalised(weights_TK, guard=1e-20)
        losses = {}
        if self.training:
            losses["balance"] = self._balance(scores_TZ, indices_TK, context.mask_T())
        return SparsePlan.from_choices(
            weights_TK,
            torch.where(is_true_TK, indices_TK, 0),
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            is_pair_TK=is_true_TK,
            logits_TE=true_TE,
            scores_TE=scores_TZ[:, : self.num_experts],
            losses=losses,
        )

    def _balance(self, scores_TZ: Tensor, indices_TK: Tensor, mask_T: Tensor | None) -> Tensor:
        chosen_TZ, num_all = chosen(indices_TK, scores_TZ.shape[1]), scores_TZ.shape[1]
        if mask_T is not None:
            scores_TZ, chosen_TZ = scores_TZ * mask_T[:, None], chosen_TZ * mask_T[:, None]
        share_Z = chosen_TZ.sum(dim=0) / chosen_TZ.sum().clamp(min=1)
        if self.num_null:
            null_M = share_Z[self.num_experts :]
            share_Z = torch.cat([share_Z[: self.num_experts], null_M.mean().expand_as(null_M)])
        size = max(len(scores_TZ), 1) if mask_T is None else mask_T.sum().clamp(min=1)
        return num_all * (share_Z * scores_TZ.sum(dim=0) / size).sum()
