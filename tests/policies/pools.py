"""Estimates for the tests of policies."""

from __future__ import annotations

import numpy as np

from turnout.core import Candidate, Estimate, make_estimate


def make_pool(num: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(model=f"m{index}") for index in range(num))


def random_estimate(seed: int, num_queries: int = 40, num_candidates: int = 5) -> Estimate:
    rng = np.random.default_rng(seed)
    shape = (num_queries, num_candidates)
    return make_estimate(
        make_pool(num_candidates),
        rng.uniform(0.0, 1.0, shape),
        spread_QM=rng.uniform(0.0, 0.2, shape),
        cost_usd_QM=rng.uniform(1e-5, 1e-2, shape),
        latency_s_QM=rng.uniform(0.1, 5.0, shape),
    )
