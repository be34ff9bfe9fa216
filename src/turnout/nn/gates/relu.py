"""This module is the gate of ReMoE: an expert counts where its logit is above zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from turnout.core.validation import check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.computed_again import is_computed_again
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight
from turnout.nn.plan import SparsePlan


class ReLUGate(Gate):
    """Weights are ReLU(W x): no choice, no jump, a true gradient; a token has any number of experts, or none.

    `losses["sparsity"]` is lambda times the L1 norm of the weights, weighted by each expert's load, which
    makes them few and even. After each step (`after_step`) lambda is multiplied by `factor` where experts
    are active more often than k of E, and divided by it otherwise.

    Source: S61, ReMoE (arXiv 2412.14711), equation 11 for the loss, and its code for the rest. Differs: each
    layer has its own lambda and counts its own zeros, where the paper has one for all layers.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token that are aimed at, on average.
    start
        The first lambda.
    factor
        How fast lambda follows, above 1.
    """

    strength: Tensor
    active: Tensor
    seen: Tensor
    expert_rows = ("weight_ED",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, start: float = 1e-8, factor: float = 1.2
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("ReLUGate", k, num_experts)
        check_number("ReLUGate: start", start, low=0.0, allow_low=False)
        check_number("ReLUGate: factor", factor, low=1.0, allow_low=False)
        self.start, self.factor = start, factor
        self.weight_ED = new_weight(num_experts, width)
        self.exact_buffer("strength", torch.tensor(start, dtype=torch.float64))
        for name in ("active", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; in training mode its zeros are kept for `after_step`."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE, mask_T = functional.relu(logits_TE), context.mask_T()
        is_active_TE = logits_TE.detach() > 0
        losses = {}
        if self.training:
            loss = balance_loss(scores_TE, is_active_TE, kind="relu", k=self.k, mask_T=mask_T)
            losses["sparsity"] = self.strength.to(loss) * loss
        plan = SparsePlan.from_dense(
            scores_TE,
            is_pair_TE=is_active_TE,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )
        if self.training and not is_computed_again():
            self.active += plan.num_pairs
            self.seen += len(x_TD) if mask_T is None else mask_T.sum()
        return plan

    @torch.no_grad()
    def after_step(self) -> None:
        """Make lambda larger if more than k experts a token were active since the last call, else smaller."""
        if self.seen > 0:
            is_dense = self.active > self.seen * self.k
            self.strength *= torch.where(is_dense, self.factor, 1 / self.factor)
        self.active.zero_()
        self.seen.zero_()
