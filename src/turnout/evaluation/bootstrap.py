"""This module resamples queries: paired bootstrap means of many columns at once, by group if asked.

Every column sees the same resamples, so the difference of two columns is a paired one (B. Efron, "Bootstrap
methods", 1979; the cluster form draws whole groups, A. C. Cameron et al., 2008). A resample is a vector of
counts, so B resamples of P columns are one matrix product, counts (B, G) by group sums (G, P).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number, check_shape

if TYPE_CHECKING:
    import numpy.typing as npt

    from turnout.core.outcomes import Floats, Ints

CHUNK_CELLS = 2_000_000
"""Counts held at one time; 8 MB in single precision."""


def resampled_means(
    values_QP: Floats,
    *,
    num_resamples: int,
    rng: np.random.Generator,
    groups_Q: Ints | None = None,
) -> Floats:
    """Return the mean of every column in every resample, shape (B, P).

    `groups_Q` are dense group numbers from `group_numbers`; without it every query is its own group.
    Single precision inside: the relative error of a mean is about 1e-6, far below the resampling noise.
    Equal columns give equal means.
    """
    check_count("bootstrap: num_resamples", num_resamples)
    num_queries = values_QP.shape[0]
    if not num_queries:
        raise InputError(sentence("bootstrap: there is no query to resample"))
    if groups_Q is None:
        sums_GP, sizes_G = values_QP, np.ones(num_queries)
    else:
        check_shape("bootstrap: groups_Q", groups_Q, "Q", (num_queries,))
        sums_GP, sizes_G = _sum_groups(values_QP, groups_Q)
    table_GP = np.column_stack([sums_GP, sizes_G]).astype(np.float32)
    means_BP = np.empty((num_resamples, values_QP.shape[1]))
    start = 0
    for counts_BG in _counts(len(sizes_G), num_resamples, rng):
        totals_BP = (counts_BG @ table_GP).astype(np.float64)
        stop = start + len(counts_BG)
        means_BP[start:stop] = totals_BP[:, :-1] / totals_BP[:, -1:]
        start = stop
    return means_BP


def group_numbers(groups: Sequence[Hashable]) -> Ints:
    """Return dense numbers for hashable group labels, shape (Q,); equal labels, equal numbers."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in groups], dtype=np.int64)


def check_confidence(confidence: float) -> float:
    """Return the confidence if it lies inside (0, 1)."""
    return check_number(
        "evaluate: confidence", confidence, low=0.0, high=1.0, allow_low=False, allow_high=False
    )


def _counts(
    num_groups: int, num_resamples: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    size = max(1, CHUNK_CELLS // num_groups)
    for start in range(0, num_resamples, size):
        rows = min(size, num_resamples - start)
        drawn = rng.integers(0, num_groups, (rows, num_groups))
        drawn += np.arange(rows)[:, None] * num_groups
        counts = np.bincount(drawn.ravel(), minlength=rows * num_groups)
        yield counts.reshape(rows, num_groups).astype(np.float32)


def _sum_groups(values_QP: Floats, groups_Q: Ints) -> tuple[Floats, Floats]:
    order = np.argsort(groups_Q, kind="stable")
    starts = np.flatnonzero(np.diff(groups_Q[order], prepend=-1))
    sums_GP = np.add.reduceat(values_QP[order], starts, axis=0)
    return sums_GP, np.diff(starts, append=groups_Q.size).astype(np.float64)
