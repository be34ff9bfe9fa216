"""This module is the gate of BASE layers: in training experts get equal numbers of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.validation import check_number
from turnout.nn.balance.assignment import assign
from turnout.nn.gates.contract import Gate, GateContext, Sight, fp32_logits
from turnout.nn.plan import SparsePlan


class BaseGate(Gate):
    """One expert a token: in training by the balanced assignment of the best total score, else its favourite.

    Scores are x . c_e with centroids that begin orthogonal; the weight is sigmoid(x . c_e). In training the
    gate sees the batch, in eval mode the token.

    Source: S183, BASE layers (arXiv 2103.16716), section 3, and its code. Differs: all tokens of the batch
    are assigned at once, so none is shuffled between workers; the code also adds (1 - weight) x, which stands
    beside the experts here: a residual connection.

    Parameters
    ----------
    width, num_experts
        D and E.
    tolerance
        See `assign`.
    """

    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, tolerance: float = 1e-3) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.tolerance = check_number("BaseGate: tolerance", tolerance, low=0.0, allow_low=False)
        self.weight_ED = nn.Parameter(torch.empty(num_experts, width))
        nn.init.orthogonal_(self.weight_ED, gain=0.1)

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """The batch in training, else the token."""
        return "batch" if self.training else "token"

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        experts_T = logits_TE.argmax(dim=-1)
        if self.training and bool(logits_TE.isfinite().all()):
            scores_TE = logits_TE.detach() if mask_T is None else logits_TE.detach()[mask_T]
            assigned_N = assign(scores_TE, tolerance=self.tolerance).experts_T
            experts_T = assigned_N if mask_T is None else experts_T.masked_scatter(mask_T, assigned_N)
        scores_TE = logits_TE.sigmoid()
        return SparsePlan.from_choices(
            scores_TE.gather(1, experts_T[:, None]),
            experts_T[:, None],
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )
