"""This module judges a score of "the weak model will do" by ability and by what is asked of the pair.

Source: RouterXBench, S54 (arXiv 2602.11877, abstract; src/metric.py of its code, 141b79e of
github.com/zhuchichi56/RouterXBench): queries are handed to the strong model in order of rising score, and the
curve of quality over the share of calls is read in three bands. Robustness is the same on other domains.
Differs: bands are arguments, since two sets of them stand in the code: (0.7, 0.9) with (0, 0.1), the
defaults here, and (0.85, 0.95) with (0.25, 0.3). Equal scores are handed over together, as their mean, where
the code takes them as they stand. What is undefined is NaN, where the code says 0 (bands) or 0.5 (ability).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_shape

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Floats

NUM_RATES = 101
"""Shares of strong calls at which the curve is read, from 0 to 1."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Scenarios:
    """What a score is worth to a pair of models."""

    ability: float
    """Area under the ROC curve of "the weak model is right", or at least as good where quality is graded."""
    low: float
    """LPM: mean quality where few calls are paid for."""
    middle: float
    """MPM: mean quality where it lies between that of the two bands; NaN where they meet."""
    high: float
    """HCR: one less the mean share of calls that recovers most of the gap; NaN where the curve skips it."""


def scenarios(
    score_Q: Floats,
    weak_Q: Floats,
    strong_Q: Floats,
    *,
    low_calls: tuple[float, float] = (0.0, 0.1),
    high_gap: tuple[float, float] = (0.7, 0.9),
) -> Scenarios:
    """Judge a score by recorded qualities of both models, all of shape (Q,), without NaN.

    `low_calls` are shares of strong calls; `high_gap` are shares of the gap between the mean qualities.
    """
    for name, (low, high) in (("low_calls", low_calls), ("high_gap", high_gap)):
        if not 0.0 <= low < high <= 1.0:
            got = (low, high)
            raise InputError(sentence(f"scenarios: {name}", allowed="0 <= low < high <= 1", got=got))
    rate_P = np.linspace(0.0, 1.0, NUM_RATES)
    quality_P = np.interp(rate_P, *call_curve(score_Q, weak_Q, strong_Q))
    gap_P = (quality_P - weak_Q.mean()) / ((strong_Q.mean() - weak_Q.mean()) or np.nan)
    is_low_P = (rate_P >= low_calls[0] - 1e-9) & (rate_P <= low_calls[1] + 1e-9)
    is_high_P = (gap_P >= high_gap[0]) & (gap_P <= high_gap[1])
    is_middle_P = (quality_P > quality_P[is_low_P][-1:]) & (gap_P < high_gap[0])
    return Scenarios(
        ability=auroc(score_Q, (weak_Q >= strong_Q) & (weak_Q > 0.0)),
        low=_mean(quality_P[is_low_P]),
        middle=_mean(quality_P[is_middle_P]),
        high=1.0 - _mean(rate_P[is_high_P]),
    )


def call_curve(score_Q: Floats, weak_Q: Floats, strong_Q: Floats) -> tuple[Floats, Floats]:
    """Return shares of strong calls and the mean quality there, from none to all."""
    num = score_Q.size
    if not num or np.isnan(score_Q).any():
        got = "none" if not num else "a score of NaN"
        raise InputError(sentence("call_curve", allowed="a score of every query", got=got))
    check_shape("call_curve: weak_Q", weak_Q, "Q", (num,))
    check_shape("call_curve: strong_Q", strong_Q, "Q", (num,))
    order = np.argsort(score_Q, kind="stable")
    is_last = np.append(np.diff(score_Q[order]) > 0.0, True)
    gained = np.cumsum((strong_Q - weak_Q)[order])[is_last]
    called = np.flatnonzero(is_last) + 1
    quality = weak_Q.mean() + np.insert(gained, 0, 0.0) / num
    return np.insert(called, 0, 0) / num, quality


def auroc(score_Q: Floats, is_positive_Q: Bools) -> float:
    """Return the chance that a positive scores above a negative, ties counting half; NaN without both.

    Example
    -------
    >>> import numpy as np
    >>> auroc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    positive, negative = score_Q[is_positive_Q], np.sort(score_Q[~is_positive_Q])
    if not positive.size or not negative.size:
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / (2 * negative.size))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
