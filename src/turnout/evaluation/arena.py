"""This module computes the RouterArena score: accuracy, with a small weight on the logarithm of cost.

Source: RouterArena (arXiv 2510.00202), its `llm_evaluation/run.py`: with c in usd per 1,000 queries
clamped to [0.0044, 200], C = (log2 200 - log2 c) / (log2 200 - log2 0.0044) and
S = (1 + b) * A * C / (b * A + C), b = 0.1.
Trap: accuracy dominates; halving the cost from $0.30 to $0.15 is worth less than one point of accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats

LOW_USD_PER_1K = 0.0044
HIGH_USD_PER_1K = 200.0
BETA = 0.1


def arena_score(quality: Floats | float, usd_per_1k: Floats | float, *, beta: float = BETA) -> Floats:
    """Return the score in [0, 1], elementwise.

    Example
    -------
    >>> round(float(arena_score(0.7969, 0.27)), 4)
    0.7762
    """
    clamped = np.clip(np.asarray(usd_per_1k, dtype=np.float64), LOW_USD_PER_1K, HIGH_USD_PER_1K)
    span = np.log2(HIGH_USD_PER_1K) - np.log2(LOW_USD_PER_1K)
    thrift = (np.log2(HIGH_USD_PER_1K) - np.log2(clamped)) / span
    weight = beta * np.asarray(quality, dtype=np.float64) + thrift
    score: Floats = (1.0 + beta) * quality * thrift / np.where(weight > 0, weight, 1.0)
    return score
