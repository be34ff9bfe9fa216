"""This module measures how far estimated quality can be believed: ECE and the Brier score.

Source: the expected calibration error of M. P. Naeini et al. (AAAI 2015) in bins of equal width, and the
score of G. W. Brier (1950). Quality may be graded, so the Brier score is the mean squared error against
the recorded quality and an error of zero is out of reach when that is noisy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.validation import check_count, check_shape

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats

NUM_BINS = 10


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How well estimated quality fits recorded quality."""

    ece: float
    """Expected calibration error, in quality."""
    brier: float
    """Mean squared error of the estimate."""
    count: int
    """Number of (query, candidate) pairs with both an estimate and an outcome."""


def ece(estimated_N: Floats, recorded_N: Floats, *, num_bins: int = NUM_BINS) -> float:
    """Return the mean over bins of |mean recorded - mean estimated|, weighted by their counts.

    Shapes: (N,) in [0, 1], without NaN. An estimate of 1 falls in the last bin.

    Example
    -------
    >>> import numpy as np
    >>> ece(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1.0, 0.0, 0.0, 0.0]))
    0.25
    """
    check_count("ece: num_bins", num_bins)
    check_shape("ece: recorded_N", recorded_N, "N", estimated_N.shape)
    bin_N = np.minimum((estimated_N * num_bins).astype(np.int64), num_bins - 1)
    gap = np.bincount(bin_N, weights=recorded_N - estimated_N, minlength=num_bins)
    return float(np.abs(gap).sum() / estimated_N.size)


def brier(estimated_N: Floats, recorded_N: Floats) -> float:
    """Return the mean squared difference of estimate and record."""
    check_shape("brier: recorded_N", recorded_N, "N", estimated_N.shape)
    return float(np.mean((estimated_N - recorded_N) ** 2))


def calibration(estimated: Floats, recorded: Floats) -> Calibration | None:
    """Return both errors over the entries known on both sides, of any shape; None if there are none."""
    known = ~np.isnan(estimated) & ~np.isnan(recorded)
    if not known.any():
        return None
    pair = estimated[known], recorded[known]
    return Calibration(ece=ece(*pair), brier=brier(*pair), count=int(known.sum()))
