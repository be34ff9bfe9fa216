"""This module lets the gradient pass straight through a hard choice, as if it were the soft one.

Source: Bengio, Leonard and Courville, 2013 (arXiv 1308.3432); Jang, Gu and Poole, 2017 (arXiv 1611.01144),
with Gumbel noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_number


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return the value of `hard` with the gradient of `soft`, both of one shape."""
    return hard + (soft - soft.detach())


def gumbel_one_hot(logits_TE: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return a one-hot sample (T, E) of softmax(logits); its gradient is that of softmax((logits + g) / tau).

    g is the Gumbel noise of the sample. Lower temperatures have less bias and more variance.
    """
    check_number("gumbel_one_hot: temperature", temperature, low=0.0, allow_low=False)
    if logits_TE.ndim != 2:
        raise InputError(sentence("gumbel_one_hot: logits_TE", allowed="(T, E)", got=tuple(logits_TE.shape)))
    noise_TE = -torch.empty_like(logits_TE).exponential_().log()
    soft_TE = ((logits_TE + noise_TE) / temperature).softmax(dim=-1)
    hard_TE = torch.zeros_like(soft_TE).scatter_(1, soft_TE.argmax(dim=-1, keepdim=True), 1.0)
    return straight_through(hard_TE, soft_TE)
