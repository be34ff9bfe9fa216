"""This module is the hierarchical gate: first a group of experts, such as a device, then experts inside."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.balance.switch import balance_loss
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    check_k,
    chosen,
    fp32_logits,
    moved_within,
    new_weight,
)
from turnout.nn.plan import SparsePlan


class SAMGate(Gate):
    """Switch and mixture: the best group by p = softmax(G x), and in it the k best by q = softmax(W x).

    A softmax q belongs to each group of E / groups neighbours; an expert's weight is p_group q_expert. All
    experts of a token stand on one device, so that more of them cost no more traffic. `losses["balance"]` is
    that of the groups plus the mean of those inside.

    Source: S72, SAM (read in its abstract; the equations are ours).

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token, all in one group.
    num_groups
        Groups of E / num_groups experts.
    """

    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, k: int = 2, num_groups: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SAMGate", k, num_experts)
        self.num_groups = check_count("SAMGate: num_groups", num_groups)
        if num_experts % num_groups or k > num_experts // num_groups:
            allowed = f"E = {num_experts} = num_groups * size and k <= size"
            raise InputError(sentence("SAMGate: k and num_groups", allowed=allowed, got=(k, num_groups)))
        self.group_GD = new_weight(num_groups, width)
        self.weight_ED = new_weight(num_experts, width)

    def expert_order(self) -> Tensor:
        """Return an order in which experts move inside their groups."""
        return moved_within(self.num_experts, self.num_groups)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; its scores are p q, its logits their logarithms."""
        size = self.num_experts // self.num_groups
        log_p_TG = fp32_logits(x_TD, self.group_GD).log_softmax(dim=-1)
        inside_TGE = fp32_logits(x_TD, self.weight_ED).reshape(-1, self.num_groups, size)
        log_q_TGE = inside_TGE.log_softmax(dim=-1)
        logits_TE = (log_p_TG[..., None] + log_q_TGE).flatten(1)
        group_T1 = log_p_TG.argmax(dim=-1, keepdim=True)
        own_TE = log_q_TGE.gather(1, group_T1[..., None].expand(-1, 1, size))[:, 0]
        indices_TK = own_TE.topk(self.k, dim=-1)[1] + group_T1 * size
        scores_TE = logits_TE.exp()
        losses = {}
        if self.training:
            losses["balance"] = self._balance(log_p_TG.exp(), log_q_TGE.exp(), group_T1, indices_TK, context)
        return SparsePlan.from_choices(
            scores_TE.gather(1, indices_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def _balance(
        self, p_TG: Tensor, q_TGE: Tensor, group_T1: Tensor, indices_TK: Tensor, context: GateContext
    ) -> Tensor:
        mask_T = context.mask_T()
        taken_TGE = chosen(indices_TK, self.num_experts).view_as(q_TGE)
        total = balance_loss(p_TG, chosen(group_T1, self.num_groups), mask_T=mask_T)
        inside = []
        for group in range(self.num_groups):
            here_T = group_T1[:, 0] == group
            real_T = here_T if mask_T is None else here_T & mask_T
            inside.append(balance_loss(q_TGE[:, group], taken_TGE[:, group], mask_T=real_T))
        return total + torch.stack(inside).mean()
