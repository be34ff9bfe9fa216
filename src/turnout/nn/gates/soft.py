"""This module is the gate of Soft MoE: experts compute mixtures of tokens, and no choice is made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, Sight, by_item
from turnout.nn.plan_dense import SlotPlan


class SoftGate(Gate):
    """Each expert has P slots; a slot is a weighted mean of an item's tokens, a token's output one of slots.

    z = c normalize(x) . normalize(Phi); dispatch = softmax of z over tokens, combine = softmax over slots.
    `logits_TE` are the logarithms of the sums of exp(z) over an expert's slots, so that their softmax is what
    a token takes from each expert. Sees the sequence.

    Source: S74, Routers in Vision MoE (read in its abstract); Soft MoE (arXiv 2308.00951), equations 1 and 2,
    and a public implementation. Differs: padding is in no slot and gets nothing.

    Parameters
    ----------
    width, num_experts
        D and E.
    slots
        P, slots an expert. The experts' work is that of E P tokens an item, however long it is.
    """

    expert_rows = ("phi_ZD",)
    sees: Sight = "sequence"

    def __init__(self, *, width: int, num_experts: int, slots: int = 1) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.slots = check_count("SoftGate: slots", slots)
        self.phi_ZD = nn.Parameter(torch.randn(num_experts * slots, width) / width**0.5)
        self.factor = nn.Parameter(torch.tensor(width**0.5))

    def decide(self, x_TD: Tensor, context: GateContext) -> SlotPlan:
        """Return the plan."""
        x_BSD = by_item(functional.normalize(x_TD.float(), dim=-1), context)
        z_BSZ = self.factor.float() * (x_BSD @ functional.normalize(self.phi_ZD.float(), dim=-1).T)
        dispatch_BSZ, combine_BSZ = _both(z_BSZ, context.mask_BS)
        num_tokens = x_TD.shape[0]
        z_TEP = z_BSZ.reshape(num_tokens, self.num_experts, self.slots)
        logits_TE = z_TEP.logsumexp(dim=-1)
        return SlotPlan(
            num_tokens=num_tokens,
            num_experts=self.num_experts,
            dispatch_BSZ=dispatch_BSZ,
            combine_BSZ=combine_BSZ,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=logits_TE.softmax(dim=-1),
        )


def _both(z_BSZ: Tensor, mask_BS: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return dispatch and combine weights; padding has none of either."""
    if mask_BS is None:
        return z_BSZ.softmax(dim=1), z_BSZ.softmax(dim=2)
    is_real_BS1 = mask_BS[..., None]
    dispatch_BSZ = z_BSZ.masked_fill(~is_real_BS1, torch.finfo(z_BSZ.dtype).min).softmax(dim=1)
    # The second factor is for items of padding alone, which would be means of padding.
    return dispatch_BSZ * is_real_BS1, z_BSZ.softmax(dim=2) * is_real_BS1
