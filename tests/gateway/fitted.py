"""Deployments that can be saved: two candidates, and a router that learned which of them is better."""

from __future__ import annotations

import numpy as np

from tests.gateway.pool import LARGE, SMALL
from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter


def fitted(*, better: str = "large", pool: tuple[Candidate, ...] = (SMALL, LARGE)) -> Deployment:
    """Return a deployment that thinks one candidate better than the others, and chooses it."""
    size = len(pool)
    table = OutcomeTable(
        queries=[Query(id="q", text="a question")],
        candidates=pool,
        query_index=np.zeros(size, int),
        candidate_index=np.arange(size),
        quality=[0.9 if one.name == better else 0.5 for one in pool],
        cost_usd=[1e-4 if one.model == "large" else 1e-5 for one in pool],
    )
    router = BestSingleRouter().fit(table)
    return Deployment(router=router, fallback=router, policy=Best(), goal=Goal())
