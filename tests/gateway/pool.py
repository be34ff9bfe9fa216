"""A pool of two, and a router that knows an easy question when it reads one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core import Candidate, Estimate, Goal, OutcomeTable, PriceCard, Query, Router, make_estimate
from turnout.policies import Best, Deployment

SMALL = Candidate(
    model="small",
    price_card=PriceCard(input_usd_per_mtok=0.1, output_usd_per_mtok=0.4),
    capabilities=frozenset({"tools"}),
    context_tokens=400_000,
)
LARGE = Candidate(
    model="large",
    price_card=PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0),
    capabilities=frozenset({"tools", "json"}),
    context_tokens=400_000,
)
THINKING = Candidate(
    model="large",
    effort="high",
    max_output_tokens=500,
    price_card=PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=8.0),
    context_tokens=400_000,
)
ADAPTED = Candidate(model="small", adapter="legal", context_tokens=400_000)
POOL = (SMALL, LARGE)

QUALITY = {"small": 0.5, "large": 0.9, "large[effort=high,max_output_tokens=500]": 0.95}
COST_USD = {"small": 1e-5, "large": 1e-4, "large[effort=high,max_output_tokens=500]": 5e-4}


@final
class Reader(Router):
    """Thinks that every candidate answers a question with the word `easy` perfectly."""

    def __init__(self, *, candidates: tuple[Candidate, ...] = POOL) -> None:
        self.candidates = candidates

    def fit(self, table: OutcomeTable) -> Self:
        """Learn nothing."""
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return 1 for an easy question, else the candidate's own level."""
        names = [candidate.name for candidate in self.candidates]
        level_M = np.array([QUALITY.get(name, 0.4) for name in names])
        easy_Q = np.array(["easy" in query.words for query in queries])
        quality_QM = np.where(easy_Q[:, None], 1.0, level_M[None, :])
        cost_M = np.array([COST_USD.get(name, 1e-5) for name in names])
        cost_usd_QM = np.repeat(cost_M[None, :], len(queries), axis=0)
        return make_estimate(self.candidates, quality_QM, cost_usd_QM=cost_usd_QM)


def make_deployment(
    candidates: tuple[Candidate, ...] = POOL, *, goal: Goal | None = None, policy: Best | None = None
) -> Deployment:
    """Build a deployment that prefers quality, and the cheaper one where quality is equal."""
    router = Reader(candidates=candidates)
    return Deployment(
        router=router, fallback=router, policy=policy or Best(), goal=Goal() if goal is None else goal
    )
