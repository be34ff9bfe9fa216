"""This module is the gate of SMEAR: an item runs through one expert, the mean of all of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.validation import check_choice, check_number
from turnout.nn.gates.contract import Gate, GateContext, Sight, by_item
from turnout.nn.plan_dense import MergedPlan

Span = Literal["sequence", "past"]


class SmearGate(Gate):
    """g = softmax(LN(mean of x) . LN(R)) per item; the experts' parameters are averaged with weights g.

    One expert's work whatever E is, and a gradient to every expert. In training each expert is left out with
    probability `dropout` and the others' weights are scaled to 1 again.

    Source: S79, SMEAR (arXiv 2306.03745), section 3, and its code. Differs: the product is divided by sqrt(D)
    at the start, by one learned factor; `span="past"` is ours.

    Parameters
    ----------
    width, num_experts
        D and E.
    span
        `sequence`: the mean over an item, so decoding is refused. `past`: the mean up to each token, which is
        causal, with a merged expert for each token.
    dropout
        Probability in [0, 1).
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self, *, width: int, num_experts: int, span: Span = "sequence", dropout: float = 0.1
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        check_choice("SmearGate: span", span, ("sequence", "past"))
        check_number("SmearGate: dropout", dropout, low=0.0, high=1.0, allow_high=False)
        self.span, self.dropout = span, dropout
        self.norm = nn.LayerNorm(width)
        self.weight_ED = nn.Parameter(torch.randn(num_experts, width))
        self.factor = nn.Parameter(torch.tensor(width**-0.5))

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """What `span` says."""
        return "sequence" if self.span == "sequence" else "past"

    def decide(self, x_TD: Tensor, context: GateContext) -> MergedPlan:
        """Return the plan."""
        num_tokens = x_TD.shape[0]
        mean_GD, groups_T = self._means(x_TD, context)
        norm = self.norm
        mean_GD = functional.layer_norm(mean_GD, (self.width,), norm.weight.float(), norm.bias.float())
        rows_ED = functional.layer_norm(self.weight_ED.float(), (self.width,))
        logits_GE = self.factor.float() * (mean_GD @ rows_ED.T)
        mix_GE = logits_GE.softmax(dim=-1)
        if self.training and self.dropout > 0:
            mix_GE = self._dropped(mix_GE)
        return MergedPlan(
            num_tokens=num_tokens,
            num_experts=self.num_experts,
            mix_GE=mix_GE,
            groups_T=groups_T,
            mask_T=context.mask_T(),
            logits_TE=logits_GE[groups_T],
            scores_TE=logits_GE.softmax(dim=-1)[groups_T],
        )

    def _means(self, x_TD: Tensor, context: GateContext) -> tuple[Tensor, Tensor]:
        """Return the mean of each group, (G, D), and the group of each token."""
        x_BSD = by_item(x_TD.float(), context)
        items, positions, _ = x_BSD.shape
        mask_BS = context.mask_BS
        real_BS1 = torch.ones_like(x_BSD[..., :1]) if mask_BS is None else mask_BS[..., None].to(x_BSD)
        tokens = torch.arange(items * positions, device=x_TD.device)
        if self.span == "sequence":
            return x_BSD.sum(dim=1) / real_BS1.sum(dim=1).clamp(min=1), tokens // max(positions, 1)
        mean_BSD = x_BSD.cumsum(dim=1) / real_BS1.cumsum(dim=1).clamp(min=1)
        return mean_BSD.reshape(x_TD.shape), tokens

    def _dropped(self, mix_GE: Tensor) -> Tensor:
        is_kept_GE = torch.rand_like(mix_GE) >= self.dropout
        # Where all are dropped, all stay.
        is_kept_GE = is_kept_GE | ~is_kept_GE.any(dim=-1, keepdim=True)
        kept_GE = mix_GE * is_kept_GE
        return kept_GE / kept_GE.sum(dim=-1, keepdim=True)
