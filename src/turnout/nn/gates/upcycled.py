"""This module is the gate of router upcycling: queries that an attention layer asks, and keys of experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.errors import ShapeError, sentence
from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, normalised
from turnout.nn.plan import SparsePlan


class UpcycledGate(Gate):
    """logits_e = sum_h (Q_h x) . K_he / sqrt(size): several queries a token, a key for each query and expert.

    `load_queries` takes Q from the query projection of the attention before, when a dense model is made into
    a mixture. Then the k best by softmax, divided by their sum.

    Source: S96, Router Upcycling (arXiv 2509.00679), read in its abstract; the equation is a reading of it.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    heads, size
        Queries of a token, and their numbers.
    """

    expert_rows = ("key_HEZ",)

    def __init__(self, *, width: int, num_experts: int, k: int = 2, heads: int = 4, size: int = 16) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("UpcycledGate", k, num_experts)
        self.heads = check_count("UpcycledGate: heads", heads)
        self.size = check_count("UpcycledGate: size", size)
        self.query_HZD = nn.Parameter(torch.randn(heads, size, width) / width**0.5)
        self.key_HEZ = nn.Parameter(torch.randn(heads, num_experts, size) * 0.02)

    @torch.no_grad()
    def load_queries(self, weight_ZD: Tensor) -> None:
        """Take the first heads of a query projection, (heads * size or more, D); raises `ShapeError`."""
        needed = self.heads * self.size
        if weight_ZD.ndim != 2 or weight_ZD.shape[0] < needed or weight_ZD.shape[1] != self.width:
            allowed = f"({needed} or more, D) with D = {self.width}"
            raise ShapeError(sentence("load_queries", allowed=allowed, got=tuple(weight_ZD.shape)))
        self.query_HZD.copy_(weight_ZD[:needed].view_as(self.query_HZD))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        query_HTZ = x_TD.float() @ self.query_HZD.float().transpose(1, 2)
        logits_TE = (query_HTZ @ self.key_HEZ.float().transpose(1, 2)).sum(dim=0) / self.size**0.5
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
