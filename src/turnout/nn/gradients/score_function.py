"""This module turns losses of sampled choices into a gradient: REINFORCE, with and without a baseline.

Source: Williams, 1992; Kool, van Hoof and Welling, 2019, for the leave-one-out baseline. Unbiased whatever
the baseline is, as long as it does not depend on the sample; the price is variance.
"""

from __future__ import annotations

from torch import Tensor

from turnout.core.errors import ShapeError, sentence


def score_function_loss(log_probs_N: Tensor, losses_N: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Return the sum of (loss - baseline) log p, a scalar whose gradient is the estimate.

    Add the losses themselves where they depend on the logits in another way too, such as through a weight.
    """
    if log_probs_N.shape != losses_N.shape:
        got = f"{tuple(log_probs_N.shape)} and {tuple(losses_N.shape)}"
        raise ShapeError(sentence("score_function_loss", allowed="(N,) and (N,)", got=got))
    return ((losses_N.detach() - baseline) * log_probs_N).sum()


def leave_one_out(losses_TN: Tensor) -> Tensor:
    """Return for each of N > 1 samples of a token the mean loss of the other ones, (T, N)."""
    if losses_TN.ndim != 2 or losses_TN.shape[1] < 2:
        got = tuple(losses_TN.shape)
        raise ShapeError(sentence("leave_one_out: losses_TN", allowed="(T, N) with N > 1", got=got))
    kept_TN = losses_TN.detach()
    return (kept_TN.sum(dim=1, keepdim=True) - kept_TN) / (kept_TN.shape[1] - 1)
