"""This module is the gate of SMoE-Dropout: fixed at random, and more experts the longer one trains."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits
from turnout.nn.plan import SparsePlan


class SMoEDropoutGate(Gate):
    """Logits come from a random matrix that is never trained; k grows from `k` to E over `steps` steps.

    Each expert sees a random part of the tokens, as with dropout, and later more of them; so a trained model
    may be run with any number of experts (`k_eval`). Weights are a softmax of the chosen logits. k grows in
    `after_step`, in a straight line.

    Source: S110, SMoE-Dropout (arXiv 2303.01610), its code. Differs: none.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token at the start.
    steps
        Optimiser steps until all experts are taken.
    k_eval
        Experts of a token in eval mode; None for as many as training has come to.
    """

    weight_ED: Tensor
    step: Tensor
    expert_rows = ("weight_ED",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, steps: int = 1000, k_eval: int | None = None
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SMoEDropoutGate", k, num_experts)
        self.steps = check_count("SMoEDropoutGate: steps", steps)
        self.k_eval = None if k_eval is None else check_k("SMoEDropoutGate", k_eval, num_experts)
        self.register_buffer("weight_ED", torch.randn(num_experts, width) / width**0.5)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def k_now(self) -> int:
        """How many experts a token has in this mode at this step."""
        if not self.training and self.k_eval is not None:
            return self.k_eval
        share = min(int(self.step) / self.steps, 1.0)
        return int(self.k + (self.num_experts - self.k) * share)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        best_TK, indices_TK = logits_TE.topk(self.k_now, dim=-1)
        return SparsePlan.from_choices(
            best_TK.softmax(dim=-1),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=logits_TE.softmax(dim=-1),
        )

    def after_step(self) -> None:
        """Count the step."""
        self.step += 1
