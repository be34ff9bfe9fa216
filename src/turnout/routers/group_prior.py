"""This module estimates how far the averages of groups really differ, and so how far to draw them together.

A candidate's average on group d varies by its sampling, `v / n_d`, and by a true difference of variance
`tau^2`. The mean that draws it toward the overall mean with the weight of `v / tau^2` observations has the
least expected squared error (W. James, C. Stein, "Estimation with quadratic loss", 1961, with unequal sizes).
`tau^2` is estimated by moments: R. DerSimonian, N. Laird, "Meta-analysis in clinical trials", Controlled
Clinical Trials 7(3), 1986.
"""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats

_MIN_PRIOR = 0.1


def group_prior(share_ND: Floats, quality_NM: Floats) -> float:
    """Return one prior for all candidates, in observations: mean `v` over mean `tau^2`.

    `share_ND` says to which of D groups a row belongs. Where the groups do not differ beyond chance, the
    prior is the number of observations of a candidate: then a group's average is the overall one, and is as
    well known as that.
    """
    known_NM = np.isfinite(quality_NM).astype(np.float64)
    value_NM = np.nan_to_num(quality_NM)
    num_DM, total_DM = share_ND.T @ known_NM, share_ND.T @ value_NM
    num_M = num_DM.sum(axis=0)
    size = float(num_M[num_M > 0].mean()) if (num_M > 0).any() else 1.0
    mean_DM = total_DM / np.maximum(num_DM, 1e-12)
    inside_M = (share_ND.T @ value_NM**2 - total_DM * mean_DM).clip(min=0.0).sum(axis=0)
    free_M = num_M - (num_DM > 0).sum(axis=0)
    used_M = (free_M > 0) & ((num_DM > 0).sum(axis=0) > 1)
    if not used_M.any():
        return max(size, _MIN_PRIOR)
    within_M = inside_M[used_M] / free_M[used_M]
    between_M = _between(num_DM[:, used_M], mean_DM[:, used_M], within_M)
    within, between = float(within_M.mean()), float(between_M.mean())
    prior = within / between if between > 0.0 else np.inf
    return float(np.clip(prior, _MIN_PRIOR, max(size, _MIN_PRIOR)))


def _between(num_DM: Floats, mean_DM: Floats, within_M: Floats) -> Floats:
    """Return the moment estimate of `tau^2` per candidate, at least 0.

    With all weights `n / v` the common factor v leaves the fraction, so v = 0 needs no case of its own.
    """
    num_M = num_DM.sum(axis=0)
    centre_M = (num_DM * mean_DM).sum(axis=0) / num_M
    spread_M = (num_DM * (mean_DM - centre_M) ** 2).sum(axis=0)
    free_M = (num_DM > 0).sum(axis=0) - 1.0
    scale_M = np.maximum(num_M - (num_DM**2).sum(axis=0) / num_M, 1e-12)
    between_M: Floats = np.maximum(spread_M - free_M * within_M, 0.0) / scale_M
    return between_M
