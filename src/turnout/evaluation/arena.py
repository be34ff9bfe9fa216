"""This module computes the RouterArena score: accuracy, with a small weight on the logarithm of cost.

Source: S59, RouterArena (arXiv 2510.00202), its `llm_evaluation/run.py`: with c in usd per 1,000 queries
clamped to [0.0044, 200], C = (log2 200 - log2 c) / (log2 200 - log2 0.0044) and
S = (1 + b) * A * C / (b * A + C), b = 0.1.
Trap: accuracy dominates; halving the cost from $0.30 to $0.15 is worth less than one point of accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.errors import InputError, sentence

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
    return _mean(quality, usd_per_1k, LOW_USD_PER_1K, HIGH_USD_PER_1K, beta)


def rank_score(
    quality: Floats | float, cost_usd: Floats | float, *, low_usd: float, high_usd: float, beta: float = BETA
) -> Floats:
    """Return the rank score of VL-RouterBench: the same mean, with the bounds of a benchmark's own costs.

    S55: VL-RouterBench (arXiv 2512.23562), abstract and the README of its repository: the harmonic mean of
    accuracy and log-normalised cost, beta 0.1, between the least and the largest mean cost. The file with
    its formula was not read; the form is RouterArena's, which the README names. Costs are per query.

    Example
    -------
    >>> round(float(rank_score(0.8, 0.01, low_usd=0.001, high_usd=0.1)), 4)
    0.7586
    """
    if not 0.0 < low_usd < high_usd < np.inf:
        allowed = "0 < low < high, in usd per query"
        raise InputError(sentence("rank_score: bounds", allowed=allowed, got=(low_usd, high_usd)))
    return _mean(quality, cost_usd, low_usd, high_usd, beta)


def _mean(quality: Floats | float, cost: Floats | float, low: float, high: float, beta: float) -> Floats:
    """Return the weighted harmonic mean of quality and thrift, the place of the cost on a log scale."""
    clamped = np.clip(np.asarray(cost, dtype=np.float64), low, high)
    thrift = (np.log2(high) - np.log2(clamped)) / (np.log2(high) - np.log2(low))
    weight = beta * np.asarray(quality, dtype=np.float64) + thrift
    score: Floats = (1.0 + beta) * quality * thrift / np.where(weight > 0, weight, 1.0)
    return score
