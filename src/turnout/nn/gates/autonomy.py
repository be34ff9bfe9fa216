"""This module is the gate of Autonomy-of-Experts: there is no gate; experts say themselves who is at home."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from turnout.nn.balance.switch import balance_loss
from turnout.nn.experts import FactoredExperts
from turnout.nn.gates.contract import Gate, GateContext, check_k, chosen, normalised, stack_for
from turnout.nn.plan import SparsePlan


class AutonomyGate(Gate):
    """The k experts whose first activations are longest: n_e = |A_e x|_2, A_e the expert's own first matrix.

    Every expert begins on every token, and the k best go on. It has no parameters: what is learned is the
    experts', through the weights too. With `FactoredExperts` A_e is their small first factor (R, D), with any
    others all rows of the first projection. Weights are the softmax of the chosen n_e.
    `losses["balance"]` is that of softmax(n).

    Source: S102, Autonomy-of-Experts (arXiv 2501.13074), its abstract, notes on its text, and the released
    code for `is_normalised=False`. Differs: executors read the product of both factors, so that an expert's
    first activations are computed again where it is chosen and not kept.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    is_normalised
        Whether the weights add up to 1; else they are the softmax over all experts, as the released code has
        it.

    Needs `GateContext.experts`; a layer (`MoE`) gives its own.
    """

    expert_rows = ()
    needs: ClassVar[frozenset[str]] = frozenset({"experts"})

    def __init__(self, *, width: int, num_experts: int, k: int = 2, is_normalised: bool = True) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("AutonomyGate", k, num_experts)
        self.is_normalised = is_normalised

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; raises `ShapeError` for experts that are not (E, D)."""
        stack, experts, mask_T = stack_for(self, context), context.experts, context.mask_T()
        first_ERD = experts.first_ERD if isinstance(experts, FactoredExperts) else stack.up_EFD
        norms_TE = torch.linalg.vector_norm(
            torch.einsum("td,erd->ter", x_TD.float(), first_ERD.float()), dim=-1
        )
        scores_TE = norms_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        if self.is_normalised:
            weights_TK = normalised(weights_TK)
        losses = {}
        if self.training:
            losses["balance"] = balance_loss(scores_TE, chosen(indices_TK, self.num_experts), mask_T=mask_T)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=norms_TE,
            scores_TE=scores_TE,
            losses=losses,
        )
