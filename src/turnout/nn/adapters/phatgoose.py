"""This module routes each token by the gates that were trained beside the adapters.

Source: PHATGOOSE, arXiv 2402.05859, sections 3.1 and 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import NotFittedError, sentence
from turnout.nn.adapters.choose import check_choice_of, choose
from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear


class PhatgooseRouter(AdapterRouter):
    """Weights are a softmax of (u^ . v^_i) / sqrt(D), with u and v_i standardised, of the best adapters.

    `top_k` or `top_p` chooses among them (the other is None). The gates v_i come from `train_gate`.
    """

    def __init__(self, *, top_k: int | None = 2, top_p: float | None = None) -> None:
        check_choice_of("PhatgooseRouter", top_k, top_p)
        self.top_k, self.top_p = top_k, top_p

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return the weights, (..., E); raises `NotFittedError` for an adapter without a gate."""
        return choose(gate_scores(u, site, context), self.top_k, self.top_p)


def gate_scores(u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
    """Return (u^ . v^_i) / sqrt(D) in float32, (..., E); it lies in [-sqrt(D), sqrt(D)]."""
    missing = [name for name in context.names if name not in context.gated]
    if missing:
        raise NotFittedError(
            sentence(
                "token gates: adapters without a trained gate",
                allowed="none",
                got=missing,
                do="call train_gate",
            )
        )
    v_ED = site.cached("standard_gates", lambda s: standardise(s.gate_ED)).float()
    scores: Tensor = standardise(u.float()) @ v_ED.T / u.shape[-1] ** 0.5
    return scores


def standardise(x: Tensor) -> Tensor:
    """Return x less its mean, over its deviation, along the last axis; a constant row becomes 0.

    This is a layer norm without weights and without an epsilon that counts, so that the scale of `x`,
    such as that of a gate that was trained for few steps, has no influence.
    """
    centred = x - x.mean(-1, keepdim=True)
    deviation = centred.pow(2).mean(-1, keepdim=True).sqrt()
    return centred / deviation.clamp_min(torch.finfo(x.dtype).tiny)
