"""This module lets experts choose tokens by a transport plan of few tokens an expert."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.validation import check_count, check_number
from turnout.nn.balance.sparse_transport import sparse_transport
from turnout.nn.gates.contract import Gate, GateContext, Sight, by_item, check_k, fp32_logits, new_weight
from turnout.nn.gates.expert_choice import room_of
from turnout.nn.plan import SparsePlan


class SparseTransportChoiceGate(Gate):
    """Each expert takes the at most C = S k / E tokens of an item that a sparse transport plan gives it.

    S = softmax(W x) over the experts. The plan gives each expert as much, each token nearly 1, and is the
    best of at most C tokens an expert (`balance.sparse_transport`); who is in it is a pair, of weight S_te.
    So fewer tokens are left to nobody than in expert choice. It needs all tokens of an item and refuses
    decoding.

    Source: S74, Routers in Vision MoE (arXiv 2401.15969), its sparsity-constrained expert choice, and
    sparsity-constrained optimal transport (arXiv 2209.15466), both read in their abstracts; the authors' code
    in google-research/vmoe for all else: scores, gamma = 1, 20 steps of Adam from prices of 0, and weights
    that are scores. Differs: steps are measured by the spread of scores and fall to 0, where the code has
    0.01 throughout, more than the scores of a new gate differ by; the best prices of all steps count, not the
    last; per item; C is rounded down and at least 1. The code's other weights, the plan's own, carry no
    gradient there and are left out. What S74 itself set for gamma and steps was not read.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token on average, at most.
    gamma
        Strength of the square in the plan's objective: how evenly an expert's tokens share what it gives.
    steps
        For the prices. More of them leave fewer tokens to nobody.
    rate
        Size of the first step, in standard deviations of the scores.
    """

    sees: Sight = "sequence"
    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        gamma: float = 1.0,
        steps: int = 20,
        rate: float = 0.3,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SparseTransportChoiceGate", k, num_experts)
        self.gamma = check_number("SparseTransportChoiceGate: gamma", gamma, low=0.0, allow_low=False)
        self.steps = check_count("SparseTransportChoiceGate: steps", steps)
        self.rate = check_number("SparseTransportChoiceGate: rate", rate, low=0.0, allow_low=False)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = logits_TE.softmax(dim=-1)
        scores_BSE = by_item(scores_TE.detach(), context)
        room_B = room_of(logits_TE.new_full((context.num_items,), float(self.k)), scores_BSE, context)
        _value_B, plan_BSE = sparse_transport(
            scores_BSE,
            room_B,
            mask_BS=context.mask_BS,
            gamma=self.gamma,
            steps=self.steps,
            rate=self.rate,
        )
        return SparsePlan.from_dense(
            scores_TE,
            is_pair_TE=plan_BSE.reshape(scores_TE.shape) > 0,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            capacity=int(room_B.sum()),
            dropped_E=torch.zeros(self.num_experts, dtype=torch.long, device=logits_TE.device),
        )
