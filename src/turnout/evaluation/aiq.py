"""This module computes AIQ: the mean quality that a curve offers over a range of budgets.

Source: S63, RouterBench (arXiv 2403.12031), section 3: AIQ = 1 / (c_max - c_min) * integral of the
non-decreasing convex hull from c_min to c_max.
Differs: the range is an argument. With the dearest router of a comparison as its end, as in the published
code, a number changes when another router is added; the cheapest and the dearest single model depend on
the table alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.evaluation.hull import hull, integral

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats


def aiq(cost_usd_P: Floats, quality_P: Floats, *, low_usd: float, high_usd: float) -> float:
    """Return the AIQ of one curve over budgets of `low_usd` to `high_usd` per query.

    Budgets below the curve's cheapest point count as quality 0. Units: quality.

    Example
    -------
    >>> import numpy as np
    >>> round(aiq(np.array([1.0, 3.0]), np.array([0.4, 0.8]), low_usd=1.0, high_usd=5.0), 6)
    0.7
    """
    check_range(low_usd, high_usd)
    kept = hull(cost_usd_P, quality_P)
    area = integral(cost_usd_P[kept], quality_P[kept], low_usd, high_usd)
    return float(area) / (high_usd - low_usd)


def aiq_draws(cost_usd_BP: Floats, quality_BP: Floats, *, low_usd: float, high_usd: float) -> Floats:
    """Return the AIQ of every resample, shape (B,)."""
    return np.array(
        [
            aiq(cost_P, quality_P, low_usd=low_usd, high_usd=high_usd)
            for cost_P, quality_P in zip(cost_usd_BP, quality_BP, strict=True)
        ]
    )


def check_range(low_usd: float, high_usd: float) -> None:
    """Raise `InputError` unless the range of budgets has a width."""
    if not 0 <= low_usd < high_usd < np.inf:
        raise InputError(
            sentence("cost range", allowed="0 <= low < high, in usd per query", got=(low_usd, high_usd))
        )
