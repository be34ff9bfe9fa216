"""This module holds the loss that keeps a gate's logits small: the squared logarithm of their normaliser.

Source: ST-MoE (arXiv 2202.08906), equation 5; its coefficient is 1e-3.
"""

from __future__ import annotations

from torch import Tensor

from turnout.nn.plan import check_mask, matrix


def z_loss(logits_TE: Tensor, *, mask_T: Tensor | None = None) -> Tensor:
    """Return the mean over tokens of logsumexp(logits)^2, a scalar; padding counts nowhere.

    Raises `ShapeError` for logits of other axes, and with `InputError` for a mask that is not (T,) and
    boolean.
    """
    matrix("z_loss: logits_TE", logits_TE)
    check_mask("z_loss: mask_T", mask_T, "(T,)", tuple(logits_TE.shape[:1]))
    if mask_T is not None:
        logits_TE = logits_TE[mask_T]
    square_T = logits_TE.float().logsumexp(dim=-1).square()
    return square_T.mean() if len(square_T) else square_T.sum()
