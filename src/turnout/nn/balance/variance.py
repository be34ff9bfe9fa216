"""This module holds the losses of unevenness: the squared coefficient of variation of weight and of load.

Source: Shazeer et al., 2017 (arXiv 1701.06538), equations 6 to 11.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import ShapeError, sentence
from turnout.nn.plan import check_mask, equal, matrix


def cv_squared(total_E: Tensor) -> Tensor:
    """Return variance over squared mean of what each expert got, a scalar; 0 when even."""
    mean = total_E.mean()
    return total_E.var(unbiased=False) / mean.square().clamp(min=torch.finfo(total_E.dtype).tiny)


def importance_loss(weights_TE: Tensor, *, mask_T: Tensor | None = None) -> Tensor:
    """Return the CV^2 of each expert's sum of weights, a scalar (equations 6 and 7).

    Raises `ShapeError` for weights of other axes, and with `InputError` for a mask that is not (T,) and
    boolean.
    """
    matrix("importance_loss: weights_TE", weights_TE)
    check_mask("importance_loss: mask_T", mask_T, "(T,)", tuple(weights_TE.shape[:1]))
    weights_TE = weights_TE if mask_T is None else weights_TE[mask_T]
    return cv_squared(weights_TE.float().sum(dim=0))


def smooth_load(clean_TE: Tensor, noisy_TE: Tensor, deviation_TE: Tensor, k: int) -> Tensor:
    """Return P(T, E) that an expert is chosen if its own noise is drawn again and the others' is kept.

    Summed over tokens it is a load with a gradient (equations 8 to 10). Raises `ShapeError` unless k < E, and
    for other shapes than three times (T, E).
    """
    matrix("smooth_load: clean_TE", clean_TE)
    for name, value in (("noisy_TE", noisy_TE), ("deviation_TE", deviation_TE)):
        equal(f"smooth_load: {name}", value, "(T, E)", tuple(clean_TE.shape))
    if not 1 <= k < clean_TE.shape[1]:
        raise ShapeError(sentence("smooth_load: k", allowed=f"1 <= k < E = {clean_TE.shape[1]}", got=k))
    best_TK = noisy_TE.topk(k + 1, dim=-1)[0]
    # Without itself, a chosen expert competes with the next one, another with the last chosen.
    bar_TE = torch.where(noisy_TE >= best_TK[:, k - 1, None], best_TK[:, k, None], best_TK[:, k - 1, None])
    chance_TE: Tensor = torch.special.ndtr((clean_TE - bar_TE) / deviation_TE)
    return chance_TE


def load_loss(
    clean_TE: Tensor, noisy_TE: Tensor, deviation_TE: Tensor, k: int, *, mask_T: Tensor | None = None
) -> Tensor:
    """Return the CV^2 of the smooth load, a scalar (equation 11).

    Raises what `smooth_load` does, and `ShapeError` and `InputError` for a mask that is not (T,) and boolean.
    """
    check_mask("load_loss: mask_T", mask_T, "(T,)", tuple(clean_TE.shape[:1]))
    load_TE = smooth_load(clean_TE, noisy_TE, deviation_TE, k)
    return cv_squared((load_TE if mask_T is None else load_TE[mask_T]).sum(dim=0))
