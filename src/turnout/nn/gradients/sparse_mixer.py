"""This module samples experts and estimates the gradient of the sampling by a numeric integral.

Source: S184, GRIN (arXiv 2409.12136), section 2.1: SparseMixer-v2, with the rules of its code and of the
PhiMoE family in `transformers`. The integral of the loss along the expert's weight, from nothing to all of
it, is taken by Heun's third-order rule: at the whole weight with probability 1/4, at a third of it with 3/4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_number

WHOLE_SHARE = 0.25
"""How often the loss is looked at with the whole weight."""
PART = 1 / 3
"""Of the weight, otherwise."""


def sparse_mixer(
    logits_TE: Tensor, k: int, *, jitter: float = 0.01, training: bool = True
) -> tuple[Tensor, Tensor]:
    """Return (weights_TK, indices_TK); weights are not normalised.

    k times: experts whose logit falls behind the best one by more than 2 `jitter` of the larger of the two
    magnitudes are closed; in training one of the rest is sampled by the softmax p over them, else the best is
    taken; its weight is p. Then it is closed for the next place. In training the weight is made a third
    with probability 3/4, unless the best expert was sampled, and its gradient in the logits is
    weight * (one_hot - p), whatever the factor was. With an infinite `jitter` no expert is closed.
    """
    check_number("sparse_mixer: jitter", jitter, low=0.0)
    if not 1 <= k <= logits_TE.shape[-1]:
        raise InputError(sentence("sparse_mixer: k", allowed=f"1 <= k <= E = {logits_TE.shape[-1]}", got=k))
    weights, indices = [], []
    taken_TE = torch.zeros_like(logits_TE, dtype=torch.bool)
    for _ in range(k):
        weight_T, index_T = _place(logits_TE, taken_TE, jitter, training=training)
        taken_TE = taken_TE.scatter(1, index_T[:, None], value=True)
        weights.append(weight_T)
        indices.append(index_T)
    return torch.stack(weights, dim=1), torch.stack(indices, dim=1)


def _place(z_TE: Tensor, taken_TE: Tensor, jitter: float, *, training: bool) -> tuple[Tensor, Tensor]:
    open_TE = z_TE.masked_fill(taken_TE, -torch.inf)
    with torch.no_grad():
        best_T1, top_T1 = open_TE.max(dim=-1, keepdim=True)
        size_TE = torch.maximum(z_TE.abs(), best_T1)
        far_TE = (best_T1 - z_TE) / size_TE > 2 * jitter
    p_TE = open_TE.masked_fill(far_TE, -torch.inf).softmax(dim=-1)
    if not training:
        return p_TE.gather(1, top_T1)[:, 0], top_T1[:, 0]
    with torch.no_grad():
        pick_T1 = (p_TE / torch.empty_like(p_TE).exponential_()).argmax(dim=-1, keepdim=True)
        is_whole_T1 = (pick_T1 == top_T1) | (torch.rand_like(best_T1) < WHOLE_SHARE)
        factor_T1 = torch.where(is_whole_T1, 1.0, PART)
    weight_T1: Tensor = _Mixed.apply(z_TE, p_TE.detach(), pick_T1, factor_T1)  # type: ignore[no-untyped-call]
    return weight_T1[:, 0], pick_T1[:, 0]


class _Mixed(torch.autograd.Function):
    """p * factor forwards; g * p * (one_hot - p) backwards, without the factor."""

    @staticmethod
    def forward(ctx: Any, _z_TE: Tensor, p_TE: Tensor, pick_T1: Tensor, factor_T1: Tensor) -> Tensor:
        chosen_T1 = p_TE.gather(1, pick_T1)
        ctx.save_for_backward(p_TE, pick_T1, chosen_T1)
        return chosen_T1 * factor_T1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        p_TE, pick_T1, chosen_T1 = ctx.saved_tensors
        pull_T1 = grads[0] * chosen_T1
        return (-p_TE * pull_T1).scatter_add(1, pick_T1, pull_T1), None, None, None
