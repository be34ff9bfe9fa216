"""This module routes each token to the adapters that would change it most, without any training.

Source: Arrow, arXiv 2405.11157, section 3.2 and algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.validation import check_count, check_number
from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear


class ArrowRouter(AdapterRouter):
    """Weights are a softmax of |u . p_i| / `temperature` over the `top_k` best adapters.

    p_i is the unit direction that B_i A_i stretches most. The absolute value makes its sign immaterial.
    """

    def __init__(self, *, top_k: int = 2, temperature: float = 1.0) -> None:
        self.top_k = check_count("ArrowRouter: top_k", top_k)
        self.temperature = check_number("ArrowRouter: temperature", temperature, low=0.0, allow_low=False)

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return the weights, (..., E)."""
        p_ED = site.cached("arrow", lambda s: prototypes(s.a_ERD, s.b_EOR))
        scores = (u @ p_ED.T).abs().float()
        best, index = scores.topk(min(self.top_k, len(context.names)), dim=-1)
        kept = torch.full_like(scores, -torch.inf).scatter(-1, index, best)
        return torch.softmax(kept / self.temperature, dim=-1)


def prototypes(a_ERD: Tensor, b_EOR: Tensor) -> Tensor:
    """Return the top right singular vector of each B_i A_i, (E, D); 0 where the product is 0.

    With A^T = Q_a R_a and B = Q_b R_b the product is Q_b (R_b R_a^T) Q_a^T, so that the decomposition is
    of an R x R matrix. The power iteration of other code may stop short where two singular values are near.
    """
    q_EDR, ra_ERR = torch.linalg.qr(a_ERD.detach().double().mT)
    rb_ERR = torch.linalg.qr(b_EOR.detach().double(), mode="r").R
    _, values_ER, vh_ERR = torch.linalg.svd(rb_ERR @ ra_ERR.mT, full_matrices=False)
    p_ED = (q_EDR @ vh_ERR[:, 0, :, None]).squeeze(-1)
    kept_ED: Tensor = p_ED * (values_ER[:, :1] > 0)
    return kept_ED.to(a_ERD.dtype)
