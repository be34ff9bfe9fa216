"""This module holds the gates that every other one has to beat: chance, and one choice for all tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.nn.gates.contract import Gate, GateContext, check_k
from turnout.nn.plan import SparsePlan


class ChanceGate(Gate):
    """Each token goes to k experts drawn anew in every pass, in eval mode too; each weighs 1 / k.

    A control and no contender: it breaks the promise that eval mode has no noise, on purpose.
    """

    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("ChanceGate", k, num_experts)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        order_TE = torch.rand(x_TD.shape[0], self.num_experts, device=x_TD.device)
        indices_TK = order_TE.topk(self.k, dim=-1)[1]
        return SparsePlan.from_choices(
            torch.full_like(order_TE[:, : self.k], 1 / self.k),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
        )


class OneChoiceGate(Gate):
    """Every token goes to the same experts, weighted as another gate's scores say, divided by their sum."""

    def __init__(self, gate: Gate, experts: tuple[int, ...]) -> None:
        super().__init__(width=gate.width, num_experts=gate.num_experts)
        self.gate, self.experts = gate, experts

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        scores_TE = self.gate(x_TD, context).scores_TE
        assert scores_TE is not None
        indices_TK = torch.tensor(self.experts, device=x_TD.device).expand(x_TD.shape[0], -1)
        weights_TK = scores_TE.gather(1, indices_TK)
        return SparsePlan.from_choices(
            weights_TK / weights_TK.sum(dim=-1, keepdim=True),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
        )
