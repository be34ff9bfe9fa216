"""This module holds the auxiliary loss of balance: the product of load and mean score, expert by expert.

Source: Switch Transformers (arXiv 2101.03961), equations 4 to 6; DeepSeek-V3 (arXiv 2412.19437), equations
17 to 20, for normalised sigmoids and one loss per sequence; S61, ReMoE (arXiv 2412.14711), equation 11, for
ReLU.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.plan import check_mask

Kind = Literal["softmax", "sigmoid", "relu"]


def balance_loss(
    scores_TE: Tensor,
    chosen_TE: Tensor,
    *,
    kind: Kind = "softmax",
    k: int | None = None,
    mask_T: Tensor | None = None,
    items_T: Tensor | None = None,
    num_items: int | None = None,
) -> Tensor:
    """Return E * sum_e f_e P_e, a scalar; f is the share of choices (no gradient), P the mean score.

    Parameters
    ----------
    scores_TE
        What the choice was made of, before any bias: a choice by score plus bias is balanced through its
        score.
    chosen_TE
        Which experts were really chosen, whatever rule did it.
    kind
        `softmax`: scores sum to 1. `sigmoid`: they are divided by their sum, without an epsilon that a gate
        could hide below. `relu`: they are taken as they are and f is count / (k T), so that the loss is the
        L1 norm weighted by load of ReMoE, which falls with sparsity too.
    k
        Experts of a token that are aimed at; for `relu` alone.
    mask_T
        True at tokens; padding counts nowhere.
    items_T
        The sequence of each token: the loss is then taken in each sequence, and their mean is returned.
    num_items
        How many sequences there are; None reads it from `items_T`, which a GPU is waited for.

    The value is 1 where scores and loads are even, for every k (with `relu`: the mean sum of scores).
    """
    _check(scores_TE, chosen_TE, kind, k)
    check_mask("balance_loss: mask_T", mask_T, "(T,)", tuple(scores_TE.shape[:1]))
    p_TE = scores_TE.float()
    if mask_T is not None:
        # Even a NaN times 0 is NaN.
        p_TE = p_TE.masked_fill(~mask_T[:, None], 0.0)
    if kind == "sigmoid":
        p_TE = p_TE / p_TE.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(p_TE.dtype).tiny)
    real_T = torch.ones(len(p_TE), device=p_TE.device) if mask_T is None else mask_T.to(p_TE.dtype)
    count_BE, score_BE, size_B = (
        _by_item(value_TX, items_T, num_items)
        for value_TX in (chosen_TE * real_T[:, None], p_TE * real_T[:, None], real_T)
    )
    total_B = size_B * k if kind == "relu" and k is not None else count_BE.sum(dim=1)
    f_BE = count_BE / total_B.clamp(min=1)[:, None]
    loss_B = p_TE.shape[1] * (f_BE * score_BE / size_B.clamp(min=1)[:, None]).sum(dim=1)
    # An item of padding alone has a loss of 0 and does not count.
    return loss_B.sum() / (size_B > 0).sum().clamp(min=1)


def _by_item(value_TX: Tensor, items_T: Tensor | None, num_items: int | None) -> Tensor:
    """Return the sum over the tokens of each item, (B, ...); over all of them where there is one item."""
    if items_T is None:
        return value_TX.sum(dim=0, keepdim=True)
    if num_items is None:
        num_items = int(items_T.max()) + 1 if len(items_T) else 1
    return value_TX.new_zeros(num_items, *value_TX.shape[1:]).index_add(0, items_T, value_TX)


def _check(scores_TE: Tensor, chosen_TE: Tensor, kind: Kind, k: int | None) -> None:
    if scores_TE.ndim != 2 or scores_TE.shape != chosen_TE.shape:
        got = f"{tuple(scores_TE.shape)} and {tuple(chosen_TE.shape)}"
        raise ShapeError(
            sentence("balance_loss: scores_TE and chosen_TE", allowed="(T, E) = (T, E)", got=got)
        )
    if kind not in ("softmax", "sigmoid", "relu"):
        raise InputError(sentence("balance_loss: kind", allowed="softmax, sigmoid, relu", got=kind))
    if (kind == "relu") != (k is not None):
        raise InputError(sentence("balance_loss: k", allowed="a number for 'relu', None for others", got=k))
