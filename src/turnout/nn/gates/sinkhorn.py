"""This module is the gate of selective Sinkhorn routing: now and then by a transport plan."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.validation import check_count, check_number
from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.gates.contract import Gate, GateContext, Sight, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan


class SinkhornGate(Gate):
    """In a few training steps the k best experts are those of a transport plan with even loads.

    With probability `chance` a training step takes Pi = Sinkhorn(logits / temperature), rows of sum 1 and
    columns of T / E, in the place of softmax(logits). Chosen are the k largest, weights are divided by their
    sum, and the gradient flows through the iterations. No loss of balance. Sees the batch in training.

    Source: S118, Selective Sinkhorn Routing (arXiv 2511.08972). Differs: the other steps have no noise
    unless `noise` is given, since its size is not stated where it was read.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    chance
        Probability of a step by transport; 1 is Sinkhorn in every training step.
    temperature
        Divides the logits in the transport.
    iterations
        At most.
    noise
        Standard deviation of what is added to the logits in the other training steps.
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        chance: float = 0.01,
        temperature: float = 0.5,
        iterations: int = 100,
        noise: float = 0.0,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SinkhornGate", k, num_experts)
        self.chance = check_number("SinkhornGate: chance", chance, low=0.0, high=1.0)
        self.temperature = check_number("SinkhornGate: temperature", temperature, low=0.0, allow_low=False)
        self.iterations = check_count("SinkhornGate: iterations", iterations)
        self.noise = check_number("SinkhornGate: noise", noise, low=0.0)
        self.weight_ED = new_weight(num_experts, width)

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """The batch where a training step may be one of transport."""
        return "batch" if self.training and self.chance > 0 else "token"

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        if self.training and float(torch.rand(())) < self.chance:
            scores_TE = sinkhorn(
                logits_TE, temperature=self.temperature, max_iterations=self.iterations, mask_T=mask_T
            )
        elif self.training and self.noise > 0:
            scores_TE = (logits_TE + self.noise * torch.randn_like(logits_TE)).softmax(dim=-1)
        else:
            scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK, guard=1e-20),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )
