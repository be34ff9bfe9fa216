"""This module turns scores into sparse weights: the first k adapters, or as few as hold the share p."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number

EPSILON = 1e-6
"""Added to the sum that the kept probabilities are divided by, as in the published code of Glider."""


def top_k(scores_TE: Tensor, k: int) -> Tensor:
    """Return softmax weights of the `k` best adapters of each row, renormalised (sum + 1e-6), others 0.

    With fewer than `k` adapters all are kept. Ties go to the adapter that comes first.
    """
    probability_TE = torch.softmax(scores_TE, dim=-1)
    order_TE = torch.argsort(scores_TE, dim=-1, descending=True, stable=True)
    kept_TE = torch.zeros_like(probability_TE, dtype=torch.bool)
    return _renormalise(probability_TE, kept_TE.scatter(-1, order_TE[..., :k], True))


def top_p(scores_TE: Tensor, p: float) -> Tensor:
    """Return renormalised softmax weights of the fewest best adapters that hold a share `p`; at least one."""
    probability_TE = torch.softmax(scores_TE, dim=-1)
    order_TE = torch.argsort(scores_TE, dim=-1, descending=True, stable=True)
    ordered_TE = probability_TE.gather(-1, order_TE)
    # An adapter is kept while those before it hold less than p, so the first always is.
    is_kept_TE = ordered_TE.cumsum(-1) - ordered_TE < p
    is_kept_TE[..., 0] = True
    kept_TE = torch.zeros_like(is_kept_TE).scatter(-1, order_TE, is_kept_TE)
    return _renormalise(probability_TE, kept_TE)


def _renormalise(probability_TE: Tensor, kept_TE: Tensor) -> Tensor:
    kept = probability_TE * kept_TE
    return kept / (kept.sum(-1, keepdim=True) + EPSILON)


def check_choice_of(where: str, k: int | None, p: float | None) -> None:
    """Raise `InputError` unless exactly one of `k` and `p` is given and in its range."""
    if (k is None) == (p is None):
        raise InputError(sentence(f"{where}: top_k and top_p", allowed="exactly one", got=(k, p)))
    if k is not None:
        check_count(f"{where}: top_k", k)
    if p is not None:
        check_number(f"{where}: top_p", p, low=0.0, high=1.0, allow_low=False)


def choose(scores_TE: Tensor, k: int | None, p: float | None) -> Tensor:
    """Return `top_k` or `top_p`, whichever is set."""
    if p is not None:
        return top_p(scores_TE, p)
    return top_k(scores_TE, 1 if k is None else k)
