"""This module is the gate that balances its experts by a bias, without a loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from turnout.core.validation import check_choice
from turnout.nn.balance.bias import LossFreeBias, Rule
from turnout.nn.best import best_of
from turnout.nn.computed_again import is_computed_again
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class LossFreeGate(Gate):
    """Chosen are the k largest s + b, weighted by s; b moves against the load after each step.

    s = sigmoid(W x) or softmax(W x). After an optimiser step (`after_step`) b_e gains `step` times the sign
    of (mean load - load_e), counted over all tokens since the last one. No gradient knows of b.

    Source: S174, Loss-Free Balancing (arXiv 2408.15664), algorithm 1; S190 (arXiv 2512.03915, abstract)
    reads it as a primal-dual step. Differs: none with the defaults.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    score
        `sigmoid` or `softmax`.
    step
        u, in units of the score.
    rule
        `sign`, `relative` or `violation`, as in `LossFreeBias`.
    is_normalised
        Whether the weights are divided by their sum, as in DeepSeek-V3.
    """

    expert_rows = ("weight_ED", "bias_E")
    bias_E: Tensor

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        score: Literal["sigmoid", "softmax"] = "sigmoid",
        step: float = 1e-3,
        rule: Rule = "sign",
        is_normalised: bool = False,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("LossFreeGate", k, num_experts)
        check_choice("LossFreeGate: score", score, ("sigmoid", "softmax"))
        self.score, self.step, self.rule, self.is_normalised = score, step, rule, is_normalised
        self.balance = LossFreeBias(num_experts=num_experts, step=step, rule=rule, is_centred=False)
        self.weight_ED = new_weight(num_experts, width)
        self.exact_buffer("bias_E", torch.zeros(num_experts, dtype=torch.float32))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; in training mode its load is kept for `after_step`."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = logits_TE.sigmoid() if self.score == "sigmoid" else logits_TE.softmax(dim=-1)
        indices_TK = best_of(scores_TE.detach() + self.bias_E, self.k)
        weights_TK = scores_TE.gather(1, indices_TK)
        if self.is_normalised:
            weights_TK = normalised(weights_TK, guard=1e-20)
        plan = SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )
        if self.training and not is_computed_again():
            self.balance.observe(plan.counts_E)
        return plan

    def after_step(self) -> None:
        """Move the bias against the load since the last call."""
        self.balance.update(self.bias_E)
