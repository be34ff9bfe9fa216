"""This module is the gate whose probabilities follow a Dirichlet prior."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.balance.dirichlet import prior_loss
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class DirichletGate(Gate):
    """The k best experts by softmax, whose probabilities are pulled to those of Dirichlet(alpha).

    `losses["prior"]` is the distance between the distribution of each expert's probability over the tokens
    and Beta(alpha_e, A - alpha_e), its share under the prior (`prior_loss`). The mean probability becomes
    alpha_e / A; small parameters make a token sure of its expert, large ones make all experts alike to it.

    Source: S105, DPSL (arXiv 2510.01185), read in its abstract, reviews and notes. Differs: the norm is a
    mean square, as in the test of Cramer and von Mises; a prior belongs to experts, not to modalities.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    alpha
        One number for all experts, or one for each; the paper's best are 0.75 and 1.
    steps
        Optimiser steps with the loss, None for all: it costs a sort and a series, and the paper has it in the
        warm-up alone.
    """

    step: Tensor
    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        alpha: float | tuple[float, ...] | list[float] = 1.0,
        steps: int | None = None,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("DirichletGate", k, num_experts)
        # JSON, in which a swap keeps the arguments of its gates, knows lists alone.
        alpha = tuple(alpha) if isinstance(alpha, list) else alpha
        values = alpha if isinstance(alpha, tuple) else (alpha,) * num_experts
        if len(values) != num_experts or num_experts < 2:
            allowed = f"a number or E = {num_experts} of them, E >= 2"
            raise InputError(sentence("DirichletGate: alpha", allowed=allowed, got=alpha))
        for value in values:
            check_number("DirichletGate: alpha", value, low=0.0, allow_low=False)
        # No buffer: a module in half precision would round it.
        self.alpha, self._alphas = alpha, values
        self.steps = None if steps is None else check_count("DirichletGate: steps", steps, low=0)
        self.weight_ED = new_weight(num_experts, width)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        losses = {}
        if self.training and (self.steps is None or int(self.step) < self.steps):
            alpha_E = scores_TE.new_tensor(self._alphas, dtype=torch.float64)
            losses["prior"] = prior_loss(scores_TE, alpha_E, mask_T=mask_T)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def after_step(self) -> None:
        """Count the step."""
        self.step += 1
