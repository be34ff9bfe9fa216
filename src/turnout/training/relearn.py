"""This module learns a deployment anew from a ledger: what users said of answers, weighed by their chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turnout.core.budget import Goal
from turnout.core.candidate import Candidate
from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import Bools, OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.rows import MEASURES
from turnout.core.validation import check_count
from turnout.policies import Deployment
from turnout.training.learned import AUTO, Wanted
from turnout.training.log import PROPENSITY, by_chance, judgeable
from turnout.training.train import finite, train

MIN_SCORED = 200
"""Scored answers by chance below which nothing is promised, and so nothing is learned."""


def retrain(
    ledger: OutcomeTable,
    goal: Goal | None = None,
    *,
    candidates: Sequence[Candidate] = (),
    router: Wanted = AUTO,
    min_scored: int = MIN_SCORED,
    seed: int = 0,
    progress: Progress = silent,
) -> Deployment:
    """Return a deployment learned from the scored requests of a ledger, with what it promises measured there.

    Every scored answer teaches; dial, guard and promise are measured on those that a chance chose, weighed
    by their propensities. `candidates` describes the pool (price cards, context windows), as the deployment
    in force knows it. A candidate that was hardly tried is left out, with a note in the certificate.

    Raises `TableError` where too few requests have text, a score and a chance.
    """
    check_count("retrain: min_scored", min_scored, low=50)
    table = _described(_own_choice(ledger), candidates)
    usable_Q = np.array([bool(query.text and query.text.strip()) for query in table.queries])
    scored_Q: Bools = np.asarray(table.observed_QM.any(axis=1))
    _check_enough(table, usable_Q, scored_Q, min_scored)
    table, notes = judgeable(table.where(usable_Q & scored_Q))
    deployment = train(table, goal, router=router, is_log=True, seed=seed, progress=progress)
    chance_Q = by_chance(table)
    told: dict[str, Any] = {
        "requests": len(ledger.queries),
        "scored": len(table.queries),
        "by_chance": int(chance_Q.sum()),
        "quality": float(np.nanmean(table.quality)),
        "usd_per_1k": float(np.nanmean(table.cost_usd)) * 1000 if table.has_costs else None,
    }
    before = deployment.certificate
    before_notes = before.get("notes", ())
    more = [*notes, *(map(str, before_notes) if isinstance(before_notes, list | tuple) else ())]
    deployment.certificate = finite({**before, "log": told, **({"notes": more} if more else {})})
    return deployment


def _own_choice(ledger: OutcomeTable) -> OutcomeTable:
    """Return the ledger with no propensity where somebody else served than was chosen, as a fallback does."""
    chosen, known = ledger.extras.get("chosen"), ledger.extras.get(PROPENSITY)
    if chosen is None or known is None:
        return ledger
    names = ledger.names
    served = [names[column] for column in ledger.candidate_index.tolist()]
    own = [p if c == s else None for p, c, s in zip(known, chosen, served, strict=True)]
    return ledger.with_extras({PROPENSITY: own})


def _described(table: OutcomeTable, candidates: Sequence[Candidate]) -> OutcomeTable:
    """Return the table with the candidates described, and without answers of others where a pool is given."""
    if not candidates:
        return table
    known: Mapping[str, Candidate] = {candidate.name: candidate for candidate in candidates}
    kept = [name for name in table.names if name in known]
    if not kept:
        raise TableError(
            sentence(
                "the ledger holds no answer of the pool",
                allowed=f"answers of {', '.join(list(known)[:5])}",
                got=", ".join(table.names[:5]),
            )
        )
    part = table.select(candidates=kept)
    answered_Q = np.zeros(len(part.queries), np.bool_)
    answered_Q[part.query_index] = True
    part = part.where(answered_Q)
    return OutcomeTable(
        queries=part.queries,
        candidates=[known[name] for name in part.names],
        query_index=part.query_index,
        candidate_index=part.candidate_index,
        sample=part.sample,
        splits=part.splits,
        references=part.references,
        extras={name: list(values) for name, values in part.extras.items()},
        **{name: getattr(part, name) for name in MEASURES},
    )


def _check_enough(table: OutcomeTable, usable_Q: Bools, scored_Q: Bools, least: int) -> None:
    chance_Q = by_chance(table)
    enough = int((chance_Q & usable_Q).sum())
    if enough >= least:
        return
    if not usable_Q.any():
        do = "let the gateway keep texts (ledger.keep_text)"
    elif int((scored_Q & usable_Q).sum()) < least:
        do = "collect more feedback (POST /v1/feedback)"
    else:
        do = "let chance choose on a share of requests (routing.explore_share)"
    raise TableError(
        sentence(
            "too little of the ledger can be learned from",
            allowed=f"at least {least} requests with a text, a score, and a chance of another choice",
            got=f"{len(table.queries)} requests, {int(usable_Q.sum())} with a text, {int(scored_Q.sum())} "
            f"scored, {enough} with all three",
            do=do,
        )
    )
