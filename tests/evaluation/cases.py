"""This module builds small tables by hand and larger ones at random, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from turnout.core import Candidate, Decisions, OutcomeTable, Query, decisions_for


def make_table(
    quality_QM: npt.ArrayLike,
    cost_usd_QM: npt.ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    tasks: Sequence[str | None] | None = None,
    texts: Sequence[str | None] | None = None,
    prefix: str = "q",
) -> OutcomeTable:
    """Return a table of these cells; NaN quality means that there is no row."""
    quality = np.asarray(quality_QM, dtype=np.float64)
    cost = np.full_like(quality, np.nan) if cost_usd_QM is None else np.asarray(cost_usd_QM, np.float64)
    cost = np.broadcast_to(cost, quality.shape)
    row, column = np.nonzero(~np.isnan(quality))
    num_queries, num_candidates = quality.shape
    return OutcomeTable(
        queries=[
            Query(
                id=f"{prefix}{k}",
                text=f"{prefix} question {k} {k * 7919} {k * 104729}" if texts is None else texts[k],
                task=None if tasks is None else tasks[k],
            )
            for k in range(num_queries)
        ],
        candidates=[Candidate(model=name) for name in (names or [f"m{k}" for k in range(num_candidates)])],
        query_index=row,
        candidate_index=column,
        quality=quality[row, column],
        cost_usd=cost[row, column],
    )


def choose(table: OutcomeTable, choices: Sequence[int], *, price: float = 0.0) -> Decisions:
    """Return decisions for these columns."""
    return decisions_for(table.candidates, np.array(choices), price=price)


def random_table(num_queries: int, num_candidates: int, *, seed: int, prefix: str = "q") -> OutcomeTable:
    """Return a full table of right and wrong answers; later candidates are better and dearer."""
    rng = np.random.default_rng(seed)
    skill_M = np.linspace(0.4, 0.8, num_candidates)
    quality_QM = (rng.random((num_queries, num_candidates)) < skill_M).astype(np.float64)
    cost_QM = 1e-4 * 3.0 ** np.arange(num_candidates) * rng.uniform(0.5, 1.5, (num_queries, 1))
    tasks = [f"t{k % 3}" for k in range(num_queries)]
    return make_table(quality_QM, cost_QM, tasks=tasks, prefix=prefix)
