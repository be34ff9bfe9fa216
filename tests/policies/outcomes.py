"""Recorded outcomes with known means for the tests of the dial and the guard."""

from __future__ import annotations

import numpy as np

from turnout.policies import Frontier, Guard, measure_pairs, measure_singles

PRICES = np.array([0.0, 1.0, 10.0, 100.0, np.inf])
SHARES = np.array([1.05, 1.02, 0.99, 0.90, 0.60])
"""True quality of each price as a share of the best single model's, which is 0.8."""
USD_PER_1K = np.array([8.0, 6.0, 4.0, 2.0, 1.0])
"""True mean cost of each price, USD per 1,000."""
SINGLE_SHARES = np.array([1.0, 0.97, 0.5])
SINGLE_USD_PER_1K = np.array([8.0, 5.0, 0.9])


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw (quality_PQ, usd_PQ, quality_MQ, usd_MQ)."""
    best_Q = (rng.random(count) < 0.8).astype(float)

    def quality(shares: np.ndarray, noise: float) -> np.ndarray:
        return shares[:, None] * best_Q + rng.normal(0.0, noise, (shares.size, count))

    quality_MQ = quality(SINGLE_SHARES, 0.05)
    quality_MQ[0] = best_Q
    return (
        quality(SHARES, 0.3),
        rng.exponential(USD_PER_1K[:, None] / 1000.0, (PRICES.size, count)),
        quality_MQ,
        rng.exponential(SINGLE_USD_PER_1K[:, None] / 1000.0, (3, count)),
    )


def make_frontier(rng: np.random.Generator, count: int) -> Frontier:
    quality_PQ, usd_PQ, quality_MQ, usd_MQ = draw(rng, count)
    return Frontier(
        price_P=PRICES,
        options=measure_pairs(quality_PQ, usd_PQ, quality_MQ, usd_MQ),
        singles=measure_singles(quality_MQ, usd_MQ, 0),
        quality_M=SINGLE_SHARES * 0.8,
        usd_M=SINGLE_USD_PER_1K / 1000.0,
        best=0,
    )


def make_guard(rng: np.random.Generator, count: int, confidence: float = 0.95) -> Guard:
    return Guard(options=measure_pairs(*draw(rng, count)), confidence=confidence)
