"""This module is the gate of HyperRouter: a fixed network writes the gate's weight from a learned vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, normalised
from turnout.nn.plan import SparsePlan


class HyperGate(Gate):
    """[W, b] = B2 relu(B1 e) with B1 and B2 fixed at random; e alone is learned. Then the k best, by softmax.

    Between a gate that never changes and one that changes at will: what is learned has as many numbers as e,
    so that experts cannot all run after one direction of the gate.

    Source: S50, HyperRouter (arXiv 2312.07035), its code. Differs: k does not grow during training;
    e has `size` numbers, as many as a state in the code.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token; their weights are a softmax of their logits.
    size
        Numbers of e.
    hidden
        Units of the fixed network.
    """

    expert_rows = ("second_NH",)
    first_HZ: Tensor
    second_NH: Tensor

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, size: int = 64, hidden: int = 256
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("HyperGate", k, num_experts)
        self.size = check_count("HyperGate: size", size)
        self.hidden = check_count("HyperGate: hidden", hidden)
        self.vector_Z = nn.Parameter(torch.randn(size))
        numbers = num_experts * (width + 1)
        self.register_buffer("first_HZ", torch.randn(hidden, size) * (2 / size) ** 0.5)
        # The weight it writes has about the size that one drawn at random has after some training.
        self.register_buffer("second_NH", torch.randn(numbers, hidden) / (hidden * width) ** 0.5)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        weight_ED, bias_E = self.written()
        logits_TE = fp32_logits(x_TD, weight_ED, bias_E)
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )

    def written(self) -> tuple[Tensor, Tensor]:
        """Return the weight (E, D) and the bias (E,) that the fixed network writes now."""
        inner_H = (self.first_HZ.float() @ self.vector_Z.float()).relu()
        rows = (self.second_NH.float() @ inner_H).view(self.num_experts, self.width + 1)
        return rows[:, :-1], rows[:, -1]
