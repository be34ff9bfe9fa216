"""This module judges a router between two candidates: PGR, APGR and CPT.

Source: RouteLLM (arXiv 2406.18665), section 3. PGR = (quality - weak) / (strong - weak). APGR is its mean
over shares of strong calls from 0 to 1. CPT(x) is the smallest share of strong calls with PGR >= x.
Differs: the curve is anchored at 0 % and 100 % strong calls, where its values are known, so that the number
does not depend on the grid of thresholds. `form="routellm"` is the published code's own: no anchors, and
CPT by interpolation in the quality, which presumes that quality rises with the share.
Traps: undefined unless strong is better than weak; the share of calls is not a cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from turnout.core.validation import check_choice

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats

Form = Literal["anchored", "routellm"]


def pgr(quality: Floats, *, weak: Floats | float, strong: Floats | float) -> Floats:
    """Return the share of the performance gap that is recovered; NaN unless strong > weak."""
    gap = np.asarray(strong, dtype=np.float64) - weak
    scaled: Floats = (quality - weak) / np.where(gap > 0, gap, np.nan)
    return scaled


def apgr(share_P: Floats, quality_P: Floats, *, weak: float, strong: float, form: Form = "anchored") -> float:
    """Return the mean PGR over shares of strong calls; `share_P` in [0, 1]; NaN where undefined.

    Example
    -------
    >>> import numpy as np
    >>> apgr(np.array([0.5]), np.array([0.8]), weak=0.6, strong=0.9)
    0.5833333333333334
    """
    check_choice("apgr: form", form, ("anchored", "routellm"))
    if not strong > weak:
        return float("nan")
    share, quality = _sorted(share_P, quality_P)
    if form == "anchored":
        share, quality = _anchored(share, quality, weak, strong)
    width = share[-1] - share[0]
    if not width > 0:
        return float("nan")
    mean = float(np.trapezoid(quality, share)) / float(width)
    return float((mean - weak) / (strong - weak))


def cpt(
    share_P: Floats, quality_P: Floats, *, at: float, weak: float, strong: float, form: Form = "anchored"
) -> float:
    """Return the smallest share of strong calls with PGR of at least `at`; NaN where undefined.

    The anchored form joins the points by lines and returns the first crossing.
    """
    check_choice("cpt: form", form, ("anchored", "routellm"))
    if not strong > weak:
        return float("nan")
    share, quality = _sorted(share_P, quality_P)
    goal = at * (strong - weak) + weak
    if form == "routellm":
        return float(np.interp(goal, quality, share))
    share, quality = _anchored(share, quality, weak, strong)
    first = int(np.argmax(quality >= goal - 1e-12))
    if first == 0:
        return 0.0
    rise = quality[first] - quality[first - 1]
    part = min((goal - quality[first - 1]) / rise, 1.0)
    return float(share[first - 1] + part * (share[first] - share[first - 1]))


def _sorted(share_P: Floats, quality_P: Floats) -> tuple[Floats, Floats]:
    order = np.lexsort((quality_P, share_P))
    return share_P[order], quality_P[order]


def _anchored(share: Floats, quality: Floats, weak: float, strong: float) -> tuple[Floats, Floats]:
    # A point at 0 or 1 is the anchor itself: every query goes to one model.
    inside = (share > 0) & (share < 1)
    return (
        np.concatenate([[0.0], share[inside], [1.0]]),
        np.concatenate([[weak], quality[inside], [strong]]),
    )
