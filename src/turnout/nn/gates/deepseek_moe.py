"""This module is the gate of DeepSeekMoE: some experts for every token, the others by normalised sigmoids."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    check_k,
    chosen,
    fp32_logits,
    moved_within,
    new_weight,
    normalised,
)
from turnout.nn.plan import SparsePlan


class DeepSeekMoEGate(Gate):
    """The first experts are shared, with weight 1; of the others, the k best share the weight `scale`.

    s = sigmoid(W x); among the routed experts the k largest s are chosen, weight = scale s_e / sum of the
    chosen s. Sigmoids do not compete: where several experts are sure, they weigh the same, while a softmax
    would let the surest win. `losses["balance"]` is that of the routed experts, of one for each item.

    Source: DeepSeekMoE (arXiv 2401.06066), section 3.2; DeepSeek-V3 (arXiv 2412.19437), equations 12 to 20,
    without its bias; S83 (read in its abstract) on why both parts save samples.

    Parameters
    ----------
    width, num_experts
        D and E, the shared experts among them.
    k
        Routed experts of a token.
    num_shared
        Shared experts: those of the numbers below it.
    scale
        Sum of the routed weights.

    Logits of shared experts are 0, since nothing is computed for them.
    """

    expert_rows = ("weight_RD",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, num_shared: int = 1, scale: float = 1.0
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        check_k("DeepSeekMoEGate", k, num_experts)
        check_count("DeepSeekMoEGate: num_shared", num_shared, low=0)
        check_number("DeepSeekMoEGate: scale", scale)
        if k + num_shared > num_experts:
            allowed = f"k + num_shared <= E = {num_experts}"
            raise InputError(
                sentence("DeepSeekMoEGate: k and num_shared", allowed=allowed, got=(k, num_shared))
            )
        self.k, self.num_shared, self.scale = k, num_shared, scale
        self.weight_RD = new_weight(num_experts - num_shared, width)

    def expert_order(self) -> Tensor:
        """Return an order in which routed experts move, and shared ones stay the first."""
        routed_R = moved_within(self.num_experts - self.num_shared) + self.num_shared
        return torch.cat([torch.arange(self.num_shared), routed_R])

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TR = fp32_logits(x_TD, self.weight_RD)
        scores_TR = logits_TR.sigmoid()
        weights_TK, indices_TK = scores_TR.topk(self.k, dim=-1)
        weights_TK = self.scale * normalised(weights_TK, guard=1e-20)
        losses = {}
        if self.training:
            num_tokens = x_TD.shape[0]
            size = max(num_tokens // context.num_items, 1)
            losses["balance"] = balance_loss(
                scores_TR,
                chosen(indices_TK, scores_TR.shape[1]),
                kind="sigmoid",
                mask_T=context.mask_T(),
                items_T=torch.arange(num_tokens, device=x_TD.device) // size,
                num_items=context.num_items,
            )
        shared_S = torch.arange(self.num_shared, device=x_TD.device)
        shared_TS = shared_S.expand(x_TD.shape[0], self.num_shared)
        return SparsePlan.from_choices(
            torch.cat([torch.ones_like(shared_TS, dtype=weights_TK.dtype), weights_TK], dim=1),
            torch.cat([shared_TS, indices_TK + self.num_shared], dim=1),
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=functional.pad(logits_TR, (self.num_shared, 0)),
            scores_TE=functional.pad(scores_TR, (self.num_shared, 0)),
            losses=losses,
        )
