"""This module finds the soft assignment with equal loads that is nearest to a softmax: optimal transport.

Source: S58 (Clark et al., arXiv 2202.01169, appendix B, S-BASE) and Cuturi, 2013; the iteration of
Megatron-Core's router in the logarithmic domain, where large logits do not overflow; S118, SSR (arXiv
2511.08972), for temperature and rows that sum to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.plan import check_mask


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
    should be, relatively, or after `max_iterations`; rows are exact either way. Masked rows are 0. Gradients
    flow through the iterations.
    """
    check_number("sinkhorn: temperature", temperature, low=0.0, allow_low=False)
    check_count("sinkhorn: max_iterations", max_iterations)
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
    v_E = z_TE.new_zeros(num_experts)
    for _ in range(max_iterations):
        log_TE = (z_TE + v_E).log_softmax(dim=-1)
        log_load_E = log_TE.logsumexp(dim=0)
        if float((log_load_E.detach() - wanted_E.log()).abs().max()) <= math.log1p(tolerance):
            break
        v_E = v_E + wanted_E.log() - log_load_E
    return (z_TE + v_E).log_softmax(dim=-1).exp()


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
