"""This module reads a table as a log: each query was answered by one candidate, whom a chance chose.

What the others would have given was never seen. A doubly robust completion stands for it: for the query of a
row that candidate c answered with outcome r, chosen with probability p, and an estimate q made without it,
candidate m counts as `q_m + [m = c] (r - q_m) / p`. Its mean over queries is unbiased for every policy where
the propensities are right and every candidate had a chance (Dudik, Langford and Li, ICML 2011; the estimator
of `turnout.evaluation.offpolicy`), and its spread is what intervals and tests are made of.
"""

from __future__ import annotations

import math
import warnings
from statistics import NormalDist

import numpy as np

from turnout.core.errors import TableError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.training.replay import Outcomes

PROPENSITY = "propensity"
"""The column of a log that holds the probability of the recorded choice."""
MIN_TRIED = 30
"""Scored rows by chance below which a candidate is left out: an average of fewer says little."""

_MIN_CHANCE = 0.9
"""Share of queries on which a candidate must have had a chance, as far as its weights tell."""
_SURE = NormalDist().inv_cdf(0.99)


def propensities(table: OutcomeTable) -> Floats:
    """Return the propensity of the one answer to each query, shape (Q,); NaN where it is not known."""
    values = table.extras.get(PROPENSITY)
    if values is None:
        raise TableError(
            sentence(
                "the table is no log",
                allowed=f"a column {PROPENSITY!r} in its outcomes",
                got=", ".join(table.extras) or "no further column",
                do="read a gateway's ledger",
            )
        )
    if np.bincount(table.query_index, minlength=len(table.queries)).max(initial=0) > 1:
        raise TableError(sentence("the table is no log", allowed="one answer a query", got="several"))
    known_Q = np.full(len(table.queries), np.nan)
    known_Q[table.query_index] = [math.nan if value is None else float(value) for value in values]
    return known_Q


def by_chance(table: OutcomeTable) -> Bools:
    """Return which queries were answered by chance and scored, shape (Q,)."""
    propensity_Q = propensities(table)
    scored_Q = table.observed_QM.any(axis=1)
    chance_Q: Bools = (propensity_Q > 0.0) & (propensity_Q < 1.0) & scored_Q
    return chance_Q


def completed(table: OutcomeTable, estimate: Estimate) -> Outcomes:
    """Return what stands for every candidate's quality and cost, shape (Q, M) each; NaN where unknown.

    Every query must have been answered by chance. A value may lie outside [0, 1]; means do not.
    """
    weight_QM = np.zeros(table.quality_QM.shape)
    weight_QM[table.query_index, table.candidate_index] = 1.0 / propensities(table)[table.query_index]
    return tuple(
        _completed(seen_QM, expected_QM, weight_QM, table)
        for seen_QM, expected_QM in (
            (table.quality_QM, estimate.quality_QM),
            (table.cost_usd_QM, estimate.cost_usd_QM),
        )
    )


def _completed(seen_QM: Floats, expected_QM: Floats, weight_QM: Floats, table: OutcomeTable) -> Floats:
    # A query whose own outcome is not known says nothing of the others either.
    is_known_Q = np.zeros(len(seen_QM), np.bool_)
    is_known_Q[table.query_index] = np.isfinite(seen_QM[table.query_index, table.candidate_index])
    residual_QM = np.where(np.isfinite(seen_QM), seen_QM - expected_QM, 0.0)
    filled: Floats = np.where(is_known_Q[:, None], expected_QM + weight_QM * residual_QM, np.nan)
    return filled


def tried(table: OutcomeTable) -> tuple[Ints, Floats]:
    """Return how often each candidate was tried by chance, and on what share of queries it may have been.

    The share is the mean weight, which is 1 in expectation for who always had a chance; its upper bound at
    99 % is returned, so that what is low is not low by bad luck. Both have shape (M,).
    """
    chance_Q = by_chance(table)
    num = max(int(chance_Q.sum()), 1)
    rows = chance_Q[table.query_index]
    columns = table.candidate_index[rows]
    weights = 1.0 / propensities(table)[table.query_index[rows]]
    size = len(table.candidates)
    count_M = np.bincount(columns, minlength=size)
    mean_M = np.bincount(columns, weights=weights, minlength=size) / num
    square_M = np.bincount(columns, weights=weights**2, minlength=size) / num
    error_M = np.sqrt(np.maximum(square_M - mean_M**2, 0.0) / num)
    return count_M, mean_M + _SURE * error_M


def judgeable(table: OutcomeTable) -> tuple[OutcomeTable, tuple[str, ...]]:
    """Return the table of the candidates of whom the log can tell, and notes that name the others."""
    count_M, chance_M = tried(table)
    kept, notes = [], []
    for name, count, chance in zip(table.names, count_M.tolist(), chance_M.tolist(), strict=True):
        if count < MIN_TRIED:
            notes.append(f"{name!r} is left out: {count} scored answers by chance, of {MIN_TRIED} needed")
        elif chance < _MIN_CHANCE:
            notes.append(f"{name!r} is left out: it had a chance on at most {chance:.0%} of the requests")
        else:
            kept.append(name)
    if not kept:
        raise TableError(
            sentence(
                "the log can tell of no candidate",
                allowed=f"candidates with {MIN_TRIED} scored answers, tried by chance on every request",
                got="; ".join(notes),
                do="let the gateway try others on a share of requests, and collect feedback",
            )
        )
    if len(kept) == len(table.names):
        return table, ()
    part = table.select(candidates=kept)
    answered_Q = np.zeros(len(part.queries), np.bool_)
    answered_Q[part.query_index] = True
    return part.where(answered_Q), tuple(notes)


def means_of(outcomes: Outcomes, table: OutcomeTable) -> OutcomeTable:
    """Return a table of one query that holds the mean of every candidate: what a fallback learns from."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a candidate without a known cost has none on average
        quality_M, usd_M = (np.nanmean(values_QM, axis=0) for values_QM in outcomes)
    size = len(table.candidates)
    return OutcomeTable(
        queries=[Query(id="mean", text="")],
        candidates=table.candidates,
        query_index=np.zeros(size, np.int64),
        candidate_index=np.arange(size),
        quality=np.clip(quality_M, 0.0, 1.0),
        cost_usd=np.maximum(usd_M, 0.0),
    )
