"""This module is the gate of S2MoE: in training a token is routed twice, as it is and with noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.validation import check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    by_item,
    check_k,
    chosen,
    fp32_logits,
    new_weight,
    normalised,
    real_mean,
)
from turnout.nn.plan import SparsePlan


class S2MoEGate(Gate):
    """In training, g times the plan of x and 1 - g times that of a noised x; in eval mode that of x alone.

    The noise multiplies by N(1, s^2) and adds N(m, s^2), with m and s the mean and the standard deviation
    of the token over its D entries, times `noise`. g = sigmoid(w x) says how far a token trusts itself.
    Each plan has the k best experts by one softmax, divided by their sum. `losses["uncertainty"]` is the
    InfoNCE between the logits of both: a noised token is to be told from all others of its item by its
    routing. `losses["balance"]` is that of the plan of x.

    Source: S95, S2MoE (arXiv 2503.23007), read in its abstract and a summary, the noise as a public port has
    it. Differs: the experts compute the token itself in both plans; the contrast is between logits and not
    between states, which no expert could change.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token in each plan.
    noise
        Factor of the standard deviations; 0 makes both plans one.
    temperature
        Of the contrast.
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, noise: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("S2MoEGate", k, num_experts)
        self.noise = check_number("S2MoEGate: noise", noise, low=0.0)
        self.temperature = check_number("S2MoEGate: temperature", temperature, low=0.0, allow_low=False)
        self.weight_ED = new_weight(num_experts, width)
        self.trust_D = nn.Parameter(torch.zeros(width))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; that of the noised token stands in the last k columns."""
        mask_T = context.mask_T()
        logits_TE, scores_TE, weights_TK, indices_TK = self._best(x_TD.float())
        losses = {}
        if self.training:
            losses["balance"] = balance_loss(scores_TE, chosen(indices_TK, self.num_experts), mask_T=mask_T)
            noisy_TE, _, noisy_TK, other_TK = self._best(self.noised(x_TD))
            losses["uncertainty"] = self._contrast(logits_TE, noisy_TE, context)
            trust_T1 = (x_TD.float() @ self.trust_D.float()).sigmoid()[:, None]
            weights_TK = torch.cat([trust_T1 * weights_TK, (1 - trust_T1) * noisy_TK], dim=1)
            indices_TK = torch.cat([indices_TK, other_TK], dim=1)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def noised(self, x_TD: Tensor) -> Tensor:
        """Return N(1, s^2) x + N(m, s^2), drawn anew."""
        x_TD = x_TD.float()
        mean_T1 = x_TD.mean(dim=-1, keepdim=True)
        # Above 0, where the root has a slope: padding may be a row of zeros.
        spread_T1 = (x_TD - mean_T1).square().mean(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
        times_TD, plus_TD = (self.noise * spread_T1 * torch.randn_like(x_TD) for _ in range(2))
        return (1 + times_TD) * x_TD + self.noise * mean_T1 + plus_TD

    def _best(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return logits_TE, scores_TE, normalised(weights_TK), indices_TK

    def _contrast(self, logits_TE: Tensor, noisy_TE: Tensor, context: GateContext) -> Tensor:
        """Return the mean of -log of the share that a token's twin has among all of its item, by cosine."""
        real_BSE, twin_BSE = (
            functional.normalize(by_item(value, context), dim=-1) for value in (logits_TE, noisy_TE)
        )
        alike_BSS = real_BSE @ twin_BSE.transpose(1, 2) / self.temperature
        mask_BS = context.mask_BS
        if mask_BS is not None:
            alike_BSS = torch.where(mask_BS[:, None], alike_BSS, torch.finfo(alike_BSS.dtype).min)
        apart_BS = alike_BSS.logsumexp(dim=-1) - alike_BSS.diagonal(dim1=1, dim2=2)
        return real_mean(apart_BS, mask_BS)
