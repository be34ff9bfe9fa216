"""This module finds a transport plan in which each expert has a bounded number of tokens.

    max_P  <S, P> - gamma / 2 |P|^2   rows add up to 1, columns to T / E, at most C non-zeros a column

The bound makes it no convex problem, but its semi-dual is one. With a price alpha_t on each row,

    min_alpha  sum_e max_p { <p, alpha + s_e> - gamma / 2 |p|^2 } - sum_t alpha_t

where p is of sum T / E, of no negative number and of C non-zeros: its inner solution projects the C largest
of (alpha + s_e) / gamma onto the simplex, and is column e of the plan. Columns hold whatever alpha is; rows
do at the minimum, where no two of an expert's tokens tie for its last place. Source: sparsity-constrained
optimal transport (arXiv 2209.15466), known from its abstract and the authors' code in google-research/vmoe
and in POT. Axes: B items, S positions, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8
"""Adam's constants, those of its paper."""

ROUNDING = 1e-6
"""A row nearer to its sum is met: Adam would make a whole step of what rounding leaves."""


def sparse_simplex(z_BSE: Tensor, room_B: Tensor, total_B: Tensor) -> Tensor:
    """Return each column's nearest point of sum `total_B` with no negative and `room_B` non-zero numbers.

    The `room_B` largest of a column are lowered by one number each and cut at 0. Of equal ones the earlier is
    kept. -inf has no part, and a column with a room of 0 is 0.
    """
    sorted_BSE, order_BSE = z_BSE.sort(dim=1, descending=True, stable=True)
    place_S1 = torch.arange(1, z_BSE.shape[1] + 1, device=z_BSE.device, dtype=z_BSE.dtype)[:, None]
    is_open_BSE = (place_S1 <= room_B[:, None, None]) & sorted_BSE.isfinite()
    # From the top down, so that only differences are added up.
    down_BSE = torch.where(is_open_BSE, sorted_BSE - sorted_BSE[:, :1], 0.0)
    level_BSE = (down_BSE.cumsum(dim=1) - total_B[:, None, None]) / place_S1
    is_in_BSE = is_open_BSE & (down_BSE > level_BSE)
    last_B1E = (is_in_BSE.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    kept_BSE = torch.where(is_in_BSE, down_BSE - level_BSE.gather(1, last_B1E), 0.0)
    return torch.zeros_like(z_BSE).scatter(1, order_BSE, kept_BSE)


def semi_dual(
    alpha_BS: Tensor, scores_BSE: Tensor, room_B: Tensor, size_B: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return (value_B, plan_BSE) of prices; 1 less the plan's sums of rows is minus the value's gradient.

    `size_B` counts the real tokens of an item; at padding scores are -inf and prices 0.
    """
    total_B = size_B / scores_BSE.shape[2]
    priced_BSE = alpha_BS[..., None] + scores_BSE
    plan_BSE = sparse_simplex(priced_BSE / gamma, room_B, total_B)
    gain_BSE = torch.where(plan_BSE > 0, priced_BSE, 0.0) * plan_BSE
    value_B = (gain_BSE - gamma / 2 * plan_BSE.square()).sum(dim=(1, 2)) - alpha_BS.sum(dim=1)
    return value_B, plan_BSE


@torch.no_grad()
def sparse_transport(
    scores_BSE: Tensor,
    room_B: Tensor,
    *,
    mask_BS: Tensor | None = None,
    gamma: float = 1.0,
    steps: int = 20,
    rate: float = 0.3,
) -> tuple[Tensor, Tensor]:
    """Return each item's (value_B, plan_BSE), without a gradient; an expert has at most `room_B` tokens.

    Prices start at 0 and take `steps` steps of Adam; those of the lowest value make the plan. The size of a
    step is `rate` times the spread of scores among an item's tokens, falling to 0. Columns add up to S / E;
    how nearly rows add up to 1 is a matter of steps. Padding is 0. No plan's objective is above the value.
    """
    alpha_BS = scores_BSE.new_zeros(scores_BSE.shape[:2])
    wanted_BS = torch.ones_like(alpha_BS) if mask_BS is None else mask_BS.to(alpha_BS)
    if not scores_BSE.numel():
        return alpha_BS.sum(dim=1), torch.zeros_like(scores_BSE)
    size_B = wanted_BS.sum(dim=1)
    rate_B1 = rate * _spread(scores_BSE, wanted_BS, size_B)[:, None]
    if mask_BS is not None:
        scores_BSE = scores_BSE.masked_fill(~mask_BS[..., None], -torch.inf)
    least_B, best_BSE = semi_dual(alpha_BS, scores_BSE, room_B, size_B, gamma)
    plan_BSE, mean_BS, square_BS = best_BSE, alpha_BS, alpha_BS
    for step in range(1, steps + 1):
        slope_BS = plan_BSE.sum(dim=2) - wanted_BS
        slope_BS = torch.where(slope_BS.abs() > ROUNDING, slope_BS, 0.0)
        mean_BS = FIRST * mean_BS + (1 - FIRST) * slope_BS
        square_BS = SECOND * square_BS + (1 - SECOND) * slope_BS.square()
        size_BS = (square_BS / (1 - SECOND**step)).sqrt() + TINY
        falling = (1 - (step - 1) / steps) / (1 - FIRST**step)
        alpha_BS = alpha_BS - falling * rate_B1 * mean_BS / size_BS
        value_B, plan_BSE = semi_dual(alpha_BS, scores_BSE, room_B, size_B, gamma)
        is_less_B = value_B < least_B
        least_B = torch.where(is_less_B, value_B, least_B)
        best_BSE = torch.where(is_less_B[:, None, None], plan_BSE, best_BSE)
    return least_B, best_BSE


def _spread(scores_BSE: Tensor, real_BS: Tensor, size_B: Tensor) -> Tensor:
    """Return the standard deviation of a column's scores over real tokens, the mean of an item's, (B,)."""
    real_BS1, size_B1 = real_BS[..., None], size_B.clamp(min=1)[:, None]
    mean_BE = (scores_BSE * real_BS1).sum(dim=1) / size_B1
    square_BE = ((scores_BSE - mean_BE[:, None]).square() * real_BS1).sum(dim=1) / size_B1
    return square_BE.sqrt().mean(dim=1)
