"""This module is the gate of ReXMoE: neighbouring layers share their experts, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    check_k,
    fp32_logits,
    moved_within,
    new_weight,
    normalised,
)
from turnout.nn.plan import SparsePlan


class RexGate(Gate):
    """A pool of E experts belongs to `layers` neighbours; each begins with its own E / layers of them.

    Progressive scaling: up to step `start` a layer may choose its own experts alone, then the others are
    opened one after the other in a straight line, all from step `full` on. Own are those from
    (layer mod layers) E / layers on; others are opened in the order of their distance, around the pool.
    Then the k best by softmax over the open ones, divided by their sum. All layers of a group share one
    `Experts` module.

    Source: S0, ReXMoE, the schedule as its paper is summarised; the order in which others open is ours.

    Parameters
    ----------
    width, num_experts
        D and E, the whole pool.
    k
        Experts of a token.
    layers
        Layers that share the pool.
    start, full
        Steps between which it is opened; the paper has 10,000 and 30,000.
    """

    step: Tensor

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        layers: int = 2,
        start: int = 10_000,
        full: int = 30_000,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("RexGate", k, num_experts)
        self.layers = check_count("RexGate: layers", layers)
        self.start = check_count("RexGate: start", start, low=0)
        self.full = check_count("RexGate: full", full, low=start)
        if num_experts % layers or k > num_experts // layers:
            allowed = f"E = {num_experts} = layers * own and k <= own"
            raise InputError(sentence("RexGate: k and layers", allowed=allowed, got=(k, layers)))
        self.weight_ED = new_weight(num_experts, width)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def num_open(self) -> int:
        """How many experts may be chosen now."""
        own, step = self.num_experts // self.layers, int(self.step)
        share = 1.0 if step >= self.full else max(step - self.start, 0) / max(self.full - self.start, 1)
        return own + int(share * (self.num_experts - own))

    @property
    def expert_rows(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Claimed before others' experts open and after; between, they open by their numbers."""
        is_whole = self.num_open in (self.num_experts // self.layers, self.num_experts)
        return ("weight_ED",) if is_whole else None

    def expert_order(self) -> Tensor:
        """Return an order in which experts stay in the part of their layer."""
        return moved_within(self.num_experts, self.layers)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; closed experts have the score 0."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        first = context.layer % self.layers * (self.num_experts // self.layers)
        place_E = (torch.arange(self.num_experts, device=x_TD.device) - first) % self.num_experts
        scores_TE = logits_TE.masked_fill(place_E >= self.num_open, -torch.inf).softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )

    def after_step(self) -> None:
        """Count the step."""
        self.step += 1
