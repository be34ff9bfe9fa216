"""This module corrects the oracle for luck: one half of the samples chooses, the other half scores.

An oracle that picks the best of noisy outcomes is paid for noise. Where cells were sampled more than once,
the choice by one half and the score by the other (and the other way round) are independent, so luck is
not counted. The result is the quality of a router that knows half of the samples: no bound, but a fair one
where the naive oracle is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.evaluation.baselines import TIE

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Floats, OutcomeTable

MIN_QUERIES = 30
"""With fewer queries that were sampled twice the number is not reported."""


def halved_oracle(table: OutcomeTable) -> float | None:
    """Return the mean quality of a choice by one half of the samples on the other half.

    Counted are queries on which every observed candidate has samples in both halves (even and odd
    numbers); None where there are fewer than `MIN_QUERIES`. Ties share.
    """
    is_even = table.sample % 2 == 0
    even_QM, odd_QM = _half(table, is_even), _half(table, ~is_even)
    is_known_QM = ~np.isnan(even_QM) & ~np.isnan(odd_QM)
    rows = is_known_QM.any(axis=1) & (is_known_QM == table.observed_QM).all(axis=1)
    if rows.sum() < MIN_QUERIES:
        return None
    even_QM, odd_QM = even_QM[rows], odd_QM[rows]
    return float((_chosen(even_QM, odd_QM) + _chosen(odd_QM, even_QM)).mean() / 2)


def _half(table: OutcomeTable, is_half: Bools) -> Floats:
    shape = len(table.queries), len(table.candidates)
    known = is_half & ~np.isnan(table.quality)
    cell = (table.query_index * shape[1] + table.candidate_index)[known]
    count = np.bincount(cell, minlength=shape[0] * shape[1])
    total = np.bincount(cell, weights=table.quality[known], minlength=shape[0] * shape[1])
    mean = np.full(count.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.reshape(shape)


def _chosen(chooser_QM: Floats, scorer_QM: Floats) -> Floats:
    """Return the score of the best by the other half, shape (Q,); unobserved cells are NaN in both."""
    best_Q = np.nanmax(chooser_QM, axis=1)
    is_best_QM = chooser_QM >= best_Q[:, None] - TIE
    scored_QM = np.where(is_best_QM, scorer_QM, 0.0)
    mean_Q: Floats = scored_QM.sum(axis=1) / is_best_QM.sum(axis=1)
    return mean_Q
