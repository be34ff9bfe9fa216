"""This module finds the soft assignment with equal loads that is nearest to a softmax: optimal transport.

Source: S58 (Clark et al., arXiv 2202.01169, appendix B, S-BASE) and Cuturi, 2013; the iteration of
Megatron-Core's router in the logarithmic domain, where large logits do not overflow; S118, SSR (arXiv
2511.08972), for temperature and rows that sum to 1.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.plan import check_mask, matrix

NEWTON_STEPS = 200
"""At most, at each temperature; some five are usual."""

DAMPING = 1e-9
"""Beside loads of whole tokens."""


def sinkhorn(
    logits_TE: Tensor,
    *,
    temperature: float = 1.0,
    load_E: Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
    mask_T: Tensor | None = None,
) -> Tensor:
    """Return the plan (T, E): rows sum to 1, columns to T / E (or to `load_E`, which sums to T).

    It maximises sum(plan logits) + temperature * entropy(plan) under both sums, and has the form
    exp(logits / temperature + u_t + v_e). Iteration stops once the loads are within `tolerance` of what they
    should be, relatively; rows are exact either way. Where logits differ so much that `max_iterations` are
    not enough, v is found by `prices` instead, and a `RuntimeWarning` says how far loads are off if even
    these can't meet them. Masked rows are 0. Gradients flow through the iterations, or are those of the
    implicit function. Raises `InputError` for logits that are NaN or +inf in a real row.
    """
    check_number("sinkhorn: temperature", temperature, low=0.0, allow_low=False)
    check_count("sinkhorn: max_iterations", max_iterations)
    matrix("sinkhorn: logits_TE", logits_TE)
    check_mask("sinkhorn: mask_T", mask_T, "(T,)", tuple(logits_TE.shape[:1]))
    z_TE = logits_TE.float() if logits_TE.dtype != torch.float64 else logits_TE
    z_TE = z_TE / temperature
    if mask_T is not None:
        out_TE = z_TE.new_zeros(z_TE.shape)
        if bool(mask_T.any()):
            inner = sinkhorn(z_TE[mask_T], load_E=load_E, tolerance=tolerance, max_iterations=max_iterations)
            out_TE = out_TE.index_put((mask_T.nonzero().flatten(),), inner)
        return out_TE
    num_tokens, num_experts = z_TE.shape
    if not num_tokens:
        return z_TE
    wanted_E = z_TE.new_full((num_experts,), num_tokens / num_experts) if load_E is None else load_E.to(z_TE)
    _check_load(wanted_E, num_tokens, num_experts)
    if not bool((z_TE.detach().amax(dim=-1) < torch.inf).all()):
        raise InputError(sentence("sinkhorn: logits_TE", allowed="numbers, or -inf", got="NaN or inf"))
    v_E = z_TE.new_zeros(num_experts)
    for _ in range(max_iterations):
        log_TE = (z_TE + v_E).log_softmax(dim=-1)
        log_load_E = log_TE.logsumexp(dim=0)
        if float((log_load_E.detach() - wanted_E.log()).abs().max()) <= math.log1p(tolerance):
            break
        v_E = v_E + wanted_E.log() - log_load_E
    else:
        v_E = _implicit(z_TE, wanted_E, tolerance)
    return (z_TE + v_E).log_softmax(dim=-1).exp()


@torch.no_grad()
def prices(z_TE: Tensor, wanted_E: Tensor, *, tolerance: float = 1e-4) -> tuple[Tensor, float]:
    """Return (v_E, how far the worst load is off, relatively), in double precision.

    Newton's method on the convex dual, sum_t logsumexp(z_t + v) - wanted v, whose gradient is what loads are
    too large by. Logits are first divided by so much that they differ by little, then by less and less, each
    time from the prices of before: where Sinkhorn's iteration takes as many steps as logits differ by, this
    takes about their logarithm.
    """
    z_TE, wanted_E = z_TE.double(), wanted_E.double()
    known = z_TE[z_TE.isfinite()]
    scale = max(1.0, float(known.max() - known.min()) / 10) if len(known) else 1.0
    v_E, off = torch.zeros_like(wanted_E), math.inf
    while True:
        v_E, off = _newton(z_TE / scale, v_E / scale, wanted_E, tolerance)
        v_E = v_E * scale
        if scale == 1.0:
            return v_E, off
        scale = max(1.0, scale / 4)


def _newton(z_TE: Tensor, v_E: Tensor, wanted_E: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """Return the prices of one temperature and how far the worst load is off."""

    def dual(at_E: Tensor) -> float:
        return float((z_TE + at_E).logsumexp(dim=-1).sum() - wanted_E @ at_E)

    off = math.inf
    for _ in range(NEWTON_STEPS):
        p_TE = (z_TE + v_E).softmax(dim=-1)
        wrong_E = p_TE.sum(dim=0) - wanted_E
        off = float((wrong_E / wanted_E).abs().max())
        if off <= tolerance:
            break
        step_E = torch.linalg.solve(_curvature(p_TE), wrong_E)
        before, slope, length = dual(v_E), float(wrong_E @ step_E), 1.0
        while dual(v_E - length * step_E) > before - 1e-4 * length * slope and length > 1e-10:
            length /= 2
        v_E = v_E - length * step_E
    return v_E, off


def _curvature(p_TE: Tensor) -> Tensor:
    """Return the dual's second derivative (E, E), a little damped: a constant added to v changes nothing."""
    flat_EE = torch.eye(p_TE.shape[1], dtype=p_TE.dtype, device=p_TE.device)
    return torch.diag(p_TE.sum(dim=0)) - p_TE.T @ p_TE + DAMPING * flat_EE


def _implicit(z_TE: Tensor, wanted_E: Tensor, tolerance: float) -> Tensor:
    """Return the prices with their gradient in the logits, that of loads which stay what they are."""
    v_E, off = prices(z_TE.detach(), wanted_E.detach(), tolerance=tolerance)
    if not off <= tolerance:
        said = sentence("sinkhorn: loads", allowed=f"within {tolerance:g}", got=f"off by {off:.2g}")
        warnings.warn(said, RuntimeWarning, stacklevel=3)
    if not (torch.is_grad_enabled() and z_TE.requires_grad):
        return v_E.to(z_TE.dtype)
    # One more step of Newton's, whose value is 0 and whose gradient is the implicit function's.
    p_TE = (z_TE.double() + v_E).softmax(dim=-1)
    load_E = p_TE.sum(dim=0)
    moved_E: Tensor = torch.linalg.solve(_curvature(p_TE.detach()), load_E - load_E.detach())
    return (v_E - moved_E).to(z_TE.dtype)


def _check_load(wanted_E: Tensor, num_tokens: int, num_experts: int) -> None:
    if wanted_E.shape != (num_experts,):
        got = tuple(wanted_E.shape)
        raise ShapeError(sentence("sinkhorn: load_E", allowed=f"(E,) = ({num_experts},)", got=got))
    if bool((wanted_E <= 0).any()) or abs(float(wanted_E.sum()) - num_tokens) > 1e-3 * num_tokens:
        raise InputError(
            sentence(
                "sinkhorn: load_E", allowed=f"above 0, summing to T = {num_tokens}", got=wanted_E.tolist()
            )
        )
