"""This module groups candidates into tiers of about equal mean quality."""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats, Ints

_ROUNDS = 30


def tiers_of(quality_M: Floats, num_tiers: int) -> Ints:
    """Return the tier of each candidate, shape (M,), 0 the worst; -1 where the quality is unknown (NaN).

    With no more candidates than tiers each has its own, equals included. Else Lloyd's rounds in one dimension
    from evenly spaced quantiles: equals share a tier, and every tier has a member.
    """
    tier_M = np.full(quality_M.size, -1, np.int64)
    known = np.flatnonzero(np.isfinite(quality_M))
    if known.size <= num_tiers:
        tier_M[known] = np.arange(known.size)
        return tier_M
    value = quality_M[known]
    centre_T = np.unique(np.quantile(value, (np.arange(num_tiers) + 0.5) / num_tiers))
    for _ in range(_ROUNDS):
        tier = np.searchsorted(0.5 * (centre_T[1:] + centre_T[:-1]), value, side="right")
        used = np.unique(tier)
        centre_T = np.array([value[tier == one].mean() for one in used])
    tier = np.searchsorted(0.5 * (centre_T[1:] + centre_T[:-1]), value, side="right")
    tier_M[known] = np.unique(tier, return_inverse=True)[1]
    return tier_M
