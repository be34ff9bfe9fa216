"""This module turns a score into decisions: masks and caps first, then rank, then explain."""

from __future__ import annotations

import math

import numpy as np

from turnout.core.budget import Budget
from turnout.core.decision import NONE, Decisions
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats
from turnout.core.scoring import is_short, padded, rank, rank_one

NOBODY = "no candidate may serve this query"
UNKNOWN = "no candidate has a known score; the cheapest allowed one"
_NAN = math.nan


def capped(estimate: Estimate, budget: Budget) -> Bools:
    """Return `allowed_QM` after the hard caps of one decision, shape (Q, M).

    A candidate whose cost is unknown does not pass a cap on cost; one whose latency is unknown passes a
    cap on latency (unknown is not 0, and it is not infinity either, so money is
    guarded strictly and latency is not).
    """
    allowed_QM = estimate.allowed_QM
    if budget.usd_per_query is not None:
        allowed_QM = allowed_QM & (estimate.cost_usd_QM <= budget.usd_per_query)
    if budget.max_latency_s is not None:
        allowed_QM = allowed_QM & ~(estimate.latency_s_QM > budget.max_latency_s)
    return allowed_QM


def require_costs(estimate: Estimate, where: str) -> None:
    """Raise `InputError` when money is asked for and no allowed candidate has a known cost."""
    is_known_QM = np.isfinite(estimate.cost_usd_QM) & estimate.allowed_QM
    # Counting true cells costs a fifth of `any`, and this stands on the path of every request.
    if not np.count_nonzero(is_known_QM) and np.count_nonzero(estimate.allowed_QM):
        raise InputError(
            sentence(
                f"{where}: money is asked for and no candidate has a known cost",
                do="give the candidates price cards, record costs in the table, or set the price to 0",
            )
        )


def decide_by_score(
    estimate: Estimate,
    score_QM: Floats,
    budget: Budget,
    *,
    reason: str,
    allowed_QM: Bools | None = None,
) -> Decisions:
    """Return deterministic decisions: the allowed candidate of the highest score.

    Ties go to the cheaper, then to the earlier name; unknown scores stand last (`core.scoring.rank`).
    """
    mask_QM = capped(estimate, budget) if allowed_QM is None else allowed_QM
    if is_short(score_QM):
        return _decide_one(estimate, score_QM, budget, reason, mask_QM)
    ranked_QM = rank(score_QM, mask_QM, estimate.cost_usd_QM, estimate.names, quality_QM=estimate.quality_QM)
    num_queries = estimate.num_queries
    choice_Q = ranked_QM[:, 0] if ranked_QM.shape[1] else np.full(num_queries, NONE, dtype=np.int64)
    rows, column_Q = np.arange(num_queries), np.maximum(choice_Q, 0)
    nobody_Q = choice_Q == NONE
    unknown_Q = np.isnan(score_QM[rows, column_Q]) & ~nobody_Q
    quality_Q, cost_usd_Q = estimate.quality_QM[rows, column_Q], estimate.cost_usd_QM[rows, column_Q]
    if nobody_Q.any():
        quality_Q, cost_usd_Q = np.where(nobody_Q, np.nan, quality_Q), np.where(nobody_Q, np.nan, cost_usd_Q)
    return Decisions(
        candidates=estimate.candidates,
        choice_Q=choice_Q,
        ranked_QM=ranked_QM,
        propensity_Q=np.ones(num_queries),
        reason_Q=phrases(reason, nobody_Q, unknown_Q),
        quality_Q=quality_Q,
        cost_usd_Q=cost_usd_Q,
        price=budget.price,
    )


def _decide_one(
    estimate: Estimate, score_QM: Floats, budget: Budget, reason: str, mask_QM: Bools
) -> Decisions:
    """Do what `decide_by_score` does, for one query: its fast twin on the path of every request."""
    quality_QM, cost_usd_QM = estimate.quality_QM, estimate.cost_usd_QM
    order = rank_one(score_QM, mask_QM, cost_usd_QM, estimate.names, quality_QM=quality_QM)
    choice = order[0] if order else NONE
    if choice == NONE:
        quality, cost_usd, reason = _NAN, _NAN, NOBODY
    else:
        quality, cost_usd = quality_QM.item(0, choice), cost_usd_QM.item(0, choice)
        reason = UNKNOWN if math.isnan(score_QM.item(0, choice)) else reason
    return Decisions(
        candidates=estimate.candidates,
        choice_Q=np.array([choice], dtype=np.int64),
        ranked_QM=padded(order, len(estimate.candidates)),
        propensity_Q=np.array([1.0]),
        reason_Q=(reason,),
        quality_Q=np.array([quality]),
        cost_usd_Q=np.array([cost_usd]),
        price=budget.price,
    )


def phrases(reason: str, nobody_Q: Bools, unknown_Q: Bools) -> tuple[str, ...]:
    """Return one phrase per query; most are the same object, so a large batch stays cheap."""
    if not nobody_Q.any() and not unknown_Q.any():
        return (reason,) * nobody_Q.size
    pairs = zip(nobody_Q.tolist(), unknown_Q.tolist(), strict=True)
    return tuple(NOBODY if nobody else UNKNOWN if unknown else reason for nobody, unknown in pairs)
