"""This module holds the loss of Dr.LLM's routers: focal, with classes balanced by their effective number."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence

GAMMA = 2.0
BETA = 0.999


def class_weights(counts_C: Tensor, *, beta: float = BETA) -> Tensor:
    """Return alpha_C = (1 - beta) / (1 - beta^n_c), scaled to sum to the number of classes.

    A class that never occurs has weight 0. Raises `InputError` for a beta outside [0, 1) or no count at all.

    Source: Cui et al., CVPR 2019, equation 2; S12, Dr.LLM, arXiv 2510.12773, section 3.3.
    """
    if not 0.0 <= beta < 1.0:
        raise InputError(sentence("class_weights: beta", allowed="[0, 1)", got=beta))
    counts_C = counts_C.to(torch.float64)
    if not bool((counts_C > 0).any()):
        raise InputError(sentence("class_weights: counts", allowed="at least one label", got="none"))
    weight_C = torch.where(counts_C > 0, (1.0 - beta) / (1.0 - beta ** counts_C.clamp(min=1)), 0.0)
    return (weight_C * len(counts_C) / weight_C.sum()).float()


def focal_loss(
    logits_NC: Tensor, labels_N: Tensor, *, alpha_C: Tensor | None = None, gamma: float = GAMMA
) -> Tensor:
    """Return the mean over N of -alpha_y (1 - p_y)^gamma log p_y; cross-entropy at gamma 0 and no alpha.

    Source: Lin et al., ICCV 2017, equation 5; S12, Dr.LLM, arXiv 2510.12773, section 3.3.
    """
    if gamma < 0:
        raise InputError(sentence("focal_loss: gamma", allowed="at least 0", got=gamma))
    log_N = logits_NC.log_softmax(-1).gather(-1, labels_N[:, None])[:, 0]
    loss_N = -log_N
    if gamma:
        # 1 - p from the logarithm, which keeps its digits where p is close to 1.
        loss_N = (-torch.expm1(log_N)).clamp(min=0.0) ** gamma * loss_N
    if alpha_C is not None:
        loss_N = alpha_C.to(loss_N)[labels_N] * loss_N
    return loss_N.mean()
