"""This module chooses the number of neighbours and the weight of the prior by leave-one-out error."""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.means import Means, means_of
from turnout.routers.neighbours import Array, nearest
from turnout.routers.smoothing import Columns, Smoothing, columns_of
from turnout.routers.targets import Targets

NUM_NEIGHBOURS = (10, 20, 40, 80, 160)
PRIORS = (1.0, 3.0, 10.0)
_SAMPLE = 1_000
_CELLS = 1 << 22
"""Cells (query, neighbour, column) that one step gathers; bounds memory."""


def choose_smoothing(
    x_NF: Array,
    quality_QM: Floats,
    *,
    k: int | None,
    prior: float | None,
    sharpness: float,
    floor: float,
    rng: np.random.Generator,
) -> Smoothing:
    """Return the settings; where `k` or `prior` is None, the pair of least error on a sample of rows.

    Every sampled row is predicted from all others. The error is squared, on observed cells.
    """
    num = x_NF.shape[0]
    ks = (k,) if k is not None else NUM_NEIGHBOURS
    priors = (prior,) if prior is not None else PRIORS
    choices = [Smoothing(min(a, num), b, sharpness, floor) for a in ks for b in priors]
    if len(choices) == 1 or num < 3:
        return choices[0]
    rows = np.sort(rng.choice(num, min(_SAMPLE, num), replace=False))
    index_QK, similarity_QK = nearest(x_NF, x_NF[rows], min(max(ks) + 1, num))
    order = np.argsort(-similarity_QK, axis=1, kind="stable")
    index_QK = np.take_along_axis(index_QK, order, axis=1)
    weight_of = np.take_along_axis(similarity_QK, order, axis=1)
    weight_of = np.where(index_QK == rows[:, None], -2.0, weight_of)
    unknown_QM = np.full_like(quality_QM, np.nan)
    targets = Targets(quality_QM, unknown_QM, unknown_QM)
    columns, means = columns_of(targets), means_of(targets)
    errors = [_error(weight_of, index_QK, columns, means, quality_QM[rows], choice) for choice in choices]
    return choices[int(np.argmin(errors))]


def _error(
    similarity_QK: Array,
    index_QK: Ints,
    columns: Columns,
    means: Means,
    truth_QM: Floats,
    choice: Smoothing,
) -> float:
    if not np.isfinite(truth_QM).any():
        return 0.0
    # One more than k, since the row itself is among them with no weight.
    keep = choice.k + 1
    is_other = similarity_QK[:, :keep] > -1.5
    weight_QK = choice.weigh(np.maximum(similarity_QK[:, :keep], -1.0)) * is_other
    step = max(1, _CELLS // (keep * columns.value_NC.shape[1]))
    parts = [slice(low, low + step) for low in range(0, len(weight_QK), step)]
    guess_QM = np.concatenate(
        [
            columns.smooth(index_QK[part, :keep], weight_QK[part], means, choice.prior).quality_QM
            for part in parts
        ]
    )
    return float(np.nanmean((guess_QM - truth_QM) ** 2))
