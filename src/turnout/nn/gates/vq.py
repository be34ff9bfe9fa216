"""This module is the gate of VQMoE: a token's nearest code says which expert it goes to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.gates.contract import Gate, GateContext, fp32_logits, new_weight, normalised, real_mean
from turnout.nn.gradients.straight_through import straight_through
from turnout.nn.plan import SparsePlan


class VQGate(Gate):
    """One expert by the number of the token's nearest code, mod E, beside k by an ordinary gate.

    Codes c_i are vectors of width D. A two-way softmax of a linear map weighs both paths: the code's expert
    has g_1, the k best by softmax share g_0. With k = 0 codes alone decide, as after pre-training; the weight
    is 1, and its gradient is that of the softmax over -|x - c_i|^2. `losses["codes"]` is the mean of
    (c - x)^2 in the codes plus `commitment` times the same in the states. A token's expert by code does not
    change while it stays in the code's cell, whatever the gate learns.

    Source: S106, VQMoE (arXiv 2411.19402), its abstract and released code. Differs: the code's expert
    computes the state itself; in the code it is a mean of state and code, mostly state, behind a norm.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token by the ordinary gate; 0 for codes alone.
    codes
        How many; None for E.
    commitment
        How much states are pulled to their codes.
    """

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 1,
        codes: int | None = None,
        commitment: float = 0.25,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        if check_count("VQGate: k", k, low=0) > num_experts:
            raise InputError(sentence("VQGate: k", allowed=f"0 <= k <= E = {num_experts}", got=k))
        self.k = k
        self.codes = codes if codes is None else check_count("VQGate: codes", codes)
        self.commitment = check_number("VQGate: commitment", commitment, low=0.0)
        count = num_experts if codes is None else codes
        self.codes_CD = nn.Parameter(torch.empty(count, width).uniform_(-1 / count, 1 / count))
        if k:
            self.weight_ED = new_weight(num_experts, width)
            self.paths_2D = new_weight(2, width)

    @property
    def expert_rows(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Claimed where each expert has one code; else the number of a code says which expert's it is."""
        if len(self.codes_CD) != self.num_experts:
            return None
        return ("codes_CD", "weight_ED") if self.k else ("codes_CD",)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; the code's expert stands in the last column."""
        mask_T = context.mask_T()
        distance_TC = self.distances(x_TD)
        code_T1 = distance_TC.argmin(dim=-1, keepdim=True)
        losses = {}
        if self.training:
            losses["codes"] = self._pull(x_TD.float(), code_T1[:, 0], mask_T)
        expert_T1 = code_T1 % self.num_experts
        if self.k:
            logits_TE = fp32_logits(x_TD, self.weight_ED)
            scores_TE = logits_TE.softmax(dim=-1)
            best_TK, own_TK = scores_TE.topk(self.k, dim=-1)
            paths_T2 = fp32_logits(x_TD, self.paths_2D).softmax(dim=-1)
            best_TK = paths_T2[:, :1] * normalised(best_TK)
            weights_TK = torch.cat([best_TK, paths_T2[:, 1:]], dim=1)
            indices_TK = torch.cat([own_TK, expert_T1], dim=1)
        else:
            share_TC = (-distance_TC).softmax(dim=-1)
            near_T1 = share_TC.gather(1, code_T1)
            weights_TK, indices_TK = straight_through(torch.ones_like(near_T1), near_T1), expert_T1
            experts_C = torch.arange(len(self.codes_CD), device=x_TD.device) % self.num_experts
            zeros_TE = share_TC.new_zeros(len(share_TC), self.num_experts)
            scores_TE = zeros_TE.index_add(1, experts_C, share_TC)
            logits_TE = scores_TE.clamp(min=torch.finfo(scores_TE.dtype).tiny).log()
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def distances(self, x_TD: Tensor) -> Tensor:
        """Return |x - c_i|^2, (T, C)."""
        x_TD, codes_CD = x_TD.float(), self.codes_CD.float()
        inner_TC = x_TD @ codes_CD.T
        return x_TD.square().sum(dim=1, keepdim=True) - 2 * inner_TC + codes_CD.square().sum(dim=1)

    def _pull(self, x_TD: Tensor, code_T: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return how far states and their codes are apart, with the gradient that each of them is to have."""
        code_TD = self.codes_CD.float()[code_T]
        apart_T = (code_TD - x_TD.detach()).square().mean(dim=-1)
        apart_T = apart_T + self.commitment * (code_TD.detach() - x_TD).square().mean(dim=-1)
        return real_mean(apart_T, mask_T)
