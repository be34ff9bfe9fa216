"""This module is the gate of THOR, which chooses by chance, and the loss that makes experts agree."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from turnout.core.errors import ShapeError, sentence
from turnout.core.validation import check_choice, check_number
from turnout.nn.gates.contract import Gate, GateContext, real_mean
from turnout.nn.plan import SparsePlan


class ThorGate(Gate):
    """In training one expert is drawn, the same for a whole item or for each token; in eval mode all count.

    Nothing is learned. The weight is 1 in training, 1 / E in eval mode: the mean of what could have been
    drawn. Train with two passes and `consistency_loss` between them.

    Source: S138, THOR (arXiv 2110.04260), its code. Differs: of its ways to answer, only the mean over
    experts is here, since eval mode draws nothing.

    Parameters
    ----------
    width, num_experts
        D and E.
    unit
        `item` or `token`: what shares one draw.
    """

    expert_rows = ()

    def __init__(self, *, width: int, num_experts: int, unit: Literal["item", "token"] = "item") -> None:
        super().__init__(width=width, num_experts=num_experts)
        check_choice("ThorGate: unit", unit, ("item", "token"))
        self.unit = unit

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        num_tokens, device = x_TD.shape[0], x_TD.device
        if not self.training:
            indices_TK = torch.arange(self.num_experts, device=device).expand(num_tokens, -1)
        elif self.unit == "token":
            indices_TK = torch.randint(self.num_experts, (num_tokens, 1), device=device)
        else:
            drawn_B = torch.randint(self.num_experts, (context.num_items, 1), device=device)
            indices_TK = drawn_B.repeat_interleave(num_tokens // context.num_items, dim=0)
        weights_TK = torch.full(indices_TK.shape, 1 / indices_TK.shape[1], device=device)
        return SparsePlan.from_choices(
            weights_TK, indices_TK, num_experts=self.num_experts, mask_T=context.mask_T()
        )


def consistency_loss(
    first_NV: Tensor, second_NV: Tensor, *, weight: float = 1.0, mask_N: Tensor | None = None
) -> Tensor:
    """Return weight / 2 * mean over rows of sum (p - q)(log p - log q), for the logits of two passes.

    It is the sum of both Kullback-Leibler divergences, halved; 0 where the passes agree. Raises `ShapeError`
    unless both are (N, V).
    """
    check_number("consistency_loss: weight", weight, low=0.0)
    if first_NV.ndim != 2 or first_NV.shape != second_NV.shape:
        got = f"{tuple(first_NV.shape)} and {tuple(second_NV.shape)}"
        raise ShapeError(sentence("consistency_loss", allowed="(N, V) = (N, V)", got=got))
    log_p, log_q = first_NV.float().log_softmax(dim=-1), second_NV.float().log_softmax(dim=-1)
    apart_N = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1)
    return weight / 2 * real_mean(apart_N, mask_N)
