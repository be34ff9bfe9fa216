"""This module holds the loss that couples a gate's rows with the experts they stand for.

A row of the gate is taken for a token that belongs to its expert: that expert should answer it more strongly
than the others do, and should answer no other row more strongly. Source: S52, expert-router coupling
(arXiv 2512.23447), its loss and its bound of the noise. Axes: E experts, D width, I inner size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import ShapeError, sentence
from turnout.core.validation import check_number


def answers(rows_ED: Tensor, gate_EID: Tensor) -> Tensor:
    """Return M (E, E): the norm of what the gate projection of expert j makes of row i.

    `gate_EID` is the experts' gate projection: the first half of `Experts.up_proj`. Raises `ShapeError`.
    """
    if rows_ED.ndim != 2 or gate_EID.ndim != 3 or rows_ED.shape != (gate_EID.shape[0], gate_EID.shape[2]):
        got = f"{tuple(rows_ED.shape)} and {tuple(gate_EID.shape)}"
        raise ShapeError(sentence("coupling: rows and experts", allowed="(E, D) and (E, I, D)", got=got))
    inner_EEI = torch.einsum("id,jkd->ijk", rows_ED.float(), gate_EID.float())
    m_EE: Tensor = torch.linalg.vector_norm(inner_EEI, dim=-1)
    return m_EE


def coupling_loss(rows_ED: Tensor, gate_EID: Tensor, *, alpha: float = 1.0, is_noisy: bool = True) -> Tensor:
    """Return 1/E^2 sum_(i != j) relu(M_ij - alpha M_ii) + relu(M_ji - alpha M_ii), a scalar.

    Where `is_noisy`, each row is multiplied by uniform numbers in [1 - eps, 1 + eps] first, with eps half the
    distance to the nearest other row over the row's length, so that it stays nearer to itself. `alpha` below
    1 asks for a margin. Its cost does not depend on the number of tokens: 2 E^2 D I operations.
    """
    check_number("coupling_loss: alpha", alpha, low=0.0, allow_low=False)
    if is_noisy:
        rows_ED = rows_ED * noise(rows_ED)
    m_EE = answers(rows_ED, gate_EID)
    own_E1 = alpha * m_EE.diagonal()[:, None]
    over_EE = (m_EE - own_E1).relu() + (m_EE.T - own_E1).relu()
    is_other_EE = ~torch.eye(len(m_EE), dtype=torch.bool, device=m_EE.device)
    return (over_EE * is_other_EE).sum() / len(m_EE) ** 2


@torch.no_grad()
def noise(rows_ED: Tensor) -> Tensor:
    """Return the factors (E, D) that a row is multiplied by; all 1 where there is one row."""
    r_ED = rows_ED.detach().float()
    if len(r_ED) < 2:
        return torch.ones_like(r_ED)
    apart_EE = torch.cdist(r_ED, r_ED)
    apart_EE.fill_diagonal_(torch.inf)
    tiny = torch.finfo(torch.float32).tiny
    eps_E1 = (apart_EE.amin(dim=1) / (2 * r_ED.norm(dim=1)).clamp(min=tiny))[:, None]
    factor_ED: Tensor = 1 + eps_E1 * (2 * torch.rand_like(r_ED) - 1)
    return factor_ED


@torch.no_grad()
def uncoupled_share(rows_ED: Tensor, gate_EID: Tensor) -> float:
    """Return the share of pairs (i, j), i != j, in which M_ij or M_ji exceeds M_ii; 0 with one expert."""
    m_EE = answers(rows_ED, gate_EID)
    own_E1 = m_EE.diagonal()[:, None]
    is_broken_EE = torch.maximum(m_EE, m_EE.T) > own_E1
    pairs = len(m_EE) * (len(m_EE) - 1)
    return float(is_broken_EE.sum()) / pairs if pairs else 0.0
