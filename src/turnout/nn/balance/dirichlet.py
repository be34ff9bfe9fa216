"""This module holds the loss that shapes a gate's probabilities: each expert's share follows its prior.

If probabilities are drawn from a Dirichlet distribution with parameters alpha, the share of expert e has the
distribution Beta(alpha_e, A - alpha_e), A the sum of alpha. Source: S105, Dirichlet-prior shaping (arXiv
2510.01185), read in its abstract, its public reviews and notes; the norm of the distance is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.plan import check_mask

MAX_STEPS = 500
"""Of the continued fraction, which needs about the root of the larger parameter."""

EDGE = 1e-7
"""The density is taken this far inside the interval, since it has no value at an end below parameter 1."""


def prior_loss(scores_TE: Tensor, alpha_E: Tensor, *, mask_T: Tensor | None = None) -> Tensor:
    """Return sum_e mean_i (F_e(p_(i)e) - i / (N + 1))^2, a scalar; p_(i)e is the i-th smallest score of e.

    F_e is the distribution function of Beta(alpha_e, A - alpha_e), which makes scores drawn from the prior
    uniform; i / (N + 1) is where the i-th of N uniform numbers is expected. So scores that follow the prior
    have the mean loss E / (6 (N + 1)). Raises `ShapeError` unless scores are (T, E) and alpha is (E,) with
    E >= 2, and `InputError` for a parameter that is not above 0 and a mask that is not boolean.
    """
    if scores_TE.ndim != 2 or alpha_E.shape != scores_TE.shape[1:] or scores_TE.shape[1] < 2:
        got = f"{tuple(scores_TE.shape)} and {tuple(alpha_E.shape)}"
        raise ShapeError(
            sentence("prior_loss: scores_TE and alpha_E", allowed="(T, E) and (E,), E >= 2", got=got)
        )
    check_mask("prior_loss: mask_T", mask_T, "(T,)", tuple(scores_TE.shape[:1]))
    real_NE = scores_TE if mask_T is None else scores_TE[mask_T]
    if not len(real_NE):
        return scores_TE.sum() * 0
    sorted_NE = real_NE.sort(dim=0)[0]
    alpha_E = alpha_E.to(device=scores_TE.device, dtype=torch.float64)
    found_NE = beta_cdf(sorted_NE, alpha_E, alpha_E.sum() - alpha_E)
    rank_N1 = torch.arange(1, len(real_NE) + 1, device=scores_TE.device)[:, None]
    return (found_NE - rank_N1 / (len(real_NE) + 1)).square().mean(dim=0).sum()


def beta_cdf(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the distribution function of Beta(a, b) at x, the regularised incomplete beta function.

    `a` and `b` are broadcast to x and have no gradient; that in x is the density. Raises `InputError` unless
    both are above 0.
    """
    if not bool(((a > 0) & (b > 0)).all()):
        raise InputError(sentence("beta_cdf: a and b", allowed="numbers above 0", got=(a, b)))
    found: Tensor = _BetaCDF.apply(x, a.detach().double(), b.detach().double())  # type: ignore[no-untyped-call]
    return found


class _BetaCDF(torch.autograd.Function):
    """Lentz's continued fraction forwards, in double precision; the density backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        a, b, wide = a.expand(x.shape), b.expand(x.shape), x.double().clamp(0, 1)
        ctx.save_for_backward(x, a, b)
        # The fraction converges fast below the mean; above it, the other tail is taken.
        is_high = wide > (a + 1) / (a + b + 2)
        p, q = torch.where(is_high, b, a), torch.where(is_high, a, b)
        z = torch.where(is_high, 1 - wide, wide)
        tail = (p * z.log() + q * torch.log1p(-z) - _log_norm(p, q)).exp() / p * _fraction(z, p, q)
        return torch.where(is_high, 1 - tail, tail).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, a, b = ctx.saved_tensors
        wide = x.double().clamp(EDGE, 1 - EDGE)
        density = ((a - 1) * wide.log() + (b - 1) * torch.log1p(-wide) - _log_norm(a, b)).exp()
        return grads[0] * density.to(x.dtype), None, None


def _log_norm(a: Tensor, b: Tensor) -> Tensor:
    """Return the logarithm of the beta function."""
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def _fraction(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the continued fraction of the incomplete beta function."""
    c = torch.ones_like(x)
    d = 1 / (1 - (a + b) * x / (a + 1))
    h = d
    for m in range(1, MAX_STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            h = h * d * c
        if bool((d * c - 1).abs().max() < 1e-12):
            break
    return h
