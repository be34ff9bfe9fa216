"""This module holds the one idea: score minus price, and the choice of the largest.

Every level of routing ranks candidates by expected quality minus a dual price times what is scarce
(docs/prices.md). Ties go to the cheaper, then to the earlier name, so the order of candidates in a
list never decides.
"""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np

from turnout.core.decision import NONE
from turnout.core.outcomes import Bools, Floats, Ints

LEAST_PRICE = sys.float_info.min
"""A price at which money weighs nothing and still counts: who has no known cost stands last."""


def score(quality_QM: Floats, cost_usd_QM: Floats, price: float) -> Floats:
    """Return `quality - price * cost_usd`, shape (Q, M).

    At price 0 an unknown cost does not matter; at a positive price it makes the score unknown (NaN),
    never free. At an infinite price the score is minus the cost.
    """
    if price == 0.0:
        return quality_QM.copy()
    if np.isinf(price):
        scored: Floats = np.where(np.isnan(quality_QM), np.nan, -cost_usd_QM)
        return scored
    return quality_QM - price * cost_usd_QM


ROUNDING = 1e-12
"""Share of the best score below which a difference is the rounding of sums."""

FALLBACKS = 256
"""Places that are ranked of a pool of more than twice as many: nobody is asked after so many failed."""

_INF = float("inf")

_FEW = 40
"""Candidates up to which one query is ranked without numpy, whose calls cost more than so short a sort."""


@lru_cache(maxsize=256)
def name_order(names: tuple[str, ...]) -> Ints:
    """Return the rank of each name in the sorted list, shape (M,): the last resort of ties."""
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.array(names))] = np.arange(len(names))
    rank.flags.writeable = False
    return rank


def rank(
    score_QM: Floats,
    allowed_QM: Bools,
    cost_usd_QM: Floats,
    names: tuple[str, ...],
    *,
    quality_QM: Floats | None = None,
) -> Ints:
    """Rank candidates by score, cost, quality, then name; shape (Q, M), -1 after the last allowed one.

    Of a pool of more than twice `FALLBACKS` the first places alone are ranked, and the shape is
    (Q, FALLBACKS): to sort ten thousand candidates for one choice is what a sweep would spend its time on.
    A candidate whose score is unknown (NaN) stands behind every known one but is not lost. Quality
    breaks ties where the score is blind to it, as at an infinite price.
    """
    if is_short(score_QM):
        order = rank_one(score_QM, allowed_QM, cost_usd_QM, names, quality_QM=quality_QM)
        return padded(order, len(names))
    # np.lexsort sorts by its last key first.
    name_rank_QM = np.empty(score_QM.shape, dtype=np.int64)
    name_rank_QM[:] = name_order(names)
    keys = [
        name_rank_QM,
        np.where(np.isnan(cost_usd_QM), np.inf, cost_usd_QM),
        np.where(np.isnan(score_QM), np.inf, -score_QM),
        ~allowed_QM,
    ]
    if quality_QM is not None:
        keys.insert(1, np.where(np.isnan(quality_QM), np.inf, -quality_QM))
    if len(names) > 2 * FALLBACKS:
        return _first_places(keys, FALLBACKS)
    order_QM = np.lexsort(keys, axis=1)
    if allowed_QM.all():
        return order_QM
    within_QM = np.arange(len(names)) < allowed_QM.sum(axis=1)[:, None]
    ranked: Ints = np.where(within_QM, order_QM, NONE)
    return ranked


def levelled(score_QM: Floats, allowed_QM: Bools) -> Floats:
    """Return the scores, those within rounding of the best allowed one of their query made equal to it.

    Where all are equally good, a last bit must not choose the dearer.
    """
    if is_short(score_QM):
        return _levelled_one(score_QM, allowed_QM)
    best_Q1 = np.where(allowed_QM & ~np.isnan(score_QM), score_QM, -np.inf).max(
        axis=1, keepdims=True, initial=-np.inf
    )
    with np.errstate(invalid="ignore"):
        is_tied_QM = np.isfinite(best_Q1) & (score_QM >= best_Q1 - ROUNDING * np.abs(best_Q1))
    return np.where(is_tied_QM & allowed_QM, best_Q1, score_QM)


def _levelled_one(score_1M: Floats, allowed_1M: Bools) -> Floats:
    """Do what `levelled` does, for one query: its fast twin for every request."""
    (scores,), (allowed,) = score_1M.tolist(), allowed_1M.tolist()
    best = max(
        [value for value, may in zip(scores, allowed, strict=True) if may and value == value], default=_INF
    )
    if abs(best) == _INF:
        return score_1M
    least = best - ROUNDING * abs(best)
    tied = [best if may and value >= least else value for value, may in zip(scores, allowed, strict=True)]
    return np.array([tied])


def _first_places(keys: list[np.ndarray], num: int) -> Ints:
    """Return the first `num` columns of the ranking by these keys; the last two are score and refusal.

    Whoever stands behind the `num`-th best score of a query, ties included, is in none of its first places.
    """
    *_, score_QM, refused_QM = keys
    key_QM = np.where(refused_QM, np.nan, score_QM)  # numpy sorts NaN to the end
    last_Q = np.partition(key_QM, num - 1, axis=1)[:, num - 1]
    ranked_QR = np.full((len(key_QM), num), NONE)
    for row, (last, key_M) in enumerate(zip(last_Q.tolist(), key_QM, strict=True)):
        inside = np.flatnonzero(~np.isnan(key_M) if np.isnan(last) else key_M <= last)
        order = inside[np.lexsort([key[row, inside] for key in keys])][:num]
        ranked_QR[row, : order.size] = order
    return ranked_QR


def is_short(score_QM: Floats) -> bool:
    """Return whether `rank_one` is the faster way: one query, and few candidates."""
    num_queries, num_candidates = score_QM.shape
    return bool(num_queries == 1 and num_candidates <= _FEW)


def rank_one(
    score_QM: Floats,
    allowed_QM: Bools,
    cost_usd_QM: Floats,
    names: tuple[str, ...],
    *,
    quality_QM: Floats | None = None,
) -> list[int]:
    """Do what `rank` does, for one query and without the padding: its fast twin for every request."""
    num = len(names)
    (scores,), (costs,), (allowed,) = score_QM.tolist(), cost_usd_QM.tolist(), allowed_QM.tolist()
    qualities = [0.0] * num if quality_QM is None else quality_QM.tolist()[0]
    keys = [
        (
            -score if score == score else _INF,  # NaN is the one number that differs from itself
            cost if cost == cost else _INF,
            -quality if quality == quality else _INF,
            name,
            index,
        )
        for index, (score, cost, quality, name, may) in enumerate(
            zip(scores, costs, qualities, _name_ranks(names), allowed, strict=True)
        )
        if may
    ]
    keys.sort()
    return [key[-1] for key in keys]


def padded(order: list[int], num_candidates: int) -> Ints:
    """Return the ranking of one query as `rank` returns it, shape (1, M)."""
    return np.array([order + [NONE] * (num_candidates - len(order))], dtype=np.int64)


@lru_cache(maxsize=256)
def _name_ranks(names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(name_order(names).tolist())
