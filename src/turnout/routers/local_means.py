"""This module averages the k nearest rows around a vector, with a k of its own for every column.

Source: E. Fix, J. L. Hodges, "Discriminatory analysis: nonparametric discrimination", 1951, for the mean of
the k nearest; C. J. Stone, Annals of Statistics 5(4), 1977, for its consistency as k grows and k / N falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from turnout.core.outcomes import Bools, Floats, Ints
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array, Lists, build_lists, halved, lists_from, nearest
from turnout.routers.packing import below, under

_CELLS = 1 << 22
"""Cells (query, neighbour, column) that one step gathers; bounds memory."""
_SAMPLE = 2_000
_EXACT_BELOW = 4_096
_RECALL = 0.95
_COIN = 0.25


@dataclass(frozen=True, slots=True)
class LocalMeans:
    """N stored rows with C columns of outcomes, NaN where unknown."""

    x_NF: Array
    value_NC: Floats
    k_C: Ints
    """Neighbours that each column averages."""
    mean_C: Floats
    """Overall means, for a query of which nothing is known, or whose neighbours were not observed."""
    noise_C: Floats
    """Mean squared leave-one-out residual; one more outcome is a fair coin's."""
    lists: Lists | None
    """Inverted lists whose vectors are `x_NF`, or None for brute force."""
    _filled_NC: Floats = field(init=False, repr=False)
    _known_NC: Floats | None = field(init=False, repr=False)
    """None where every cell is known."""
    _inside_KC: Floats = field(init=False, repr=False)
    """Whether the neighbour of a rank counts for a column."""

    def __post_init__(self) -> None:
        is_known_NC = np.isfinite(self.value_NC)
        object.__setattr__(self, "_filled_NC", np.where(is_known_NC, self.value_NC, 0.0))
        object.__setattr__(self, "_known_NC", None if is_known_NC.all() else is_known_NC.astype(np.float64))
        ranks_K1 = np.arange(int(self.k_C.max(initial=1)))[:, None]
        object.__setattr__(self, "_inside_KC", (ranks_K1 < self.k_C).astype(np.float64))

    def predict(self, x_QF: Array) -> tuple[Floats, Floats]:
        """Return means and their standard errors, both of shape (Q, C)."""
        num_near, num_columns = self._inside_KC.shape
        step = max(1, _CELLS // max(num_near * num_columns, 1))
        lows = range(0, max(len(x_QF), 1), step)
        parts = [self._predict(x_QF[low : low + step]) for low in lows]
        value_QC, num_QC = (np.concatenate(part) for part in zip(*parts, strict=True))
        return value_QC, np.sqrt(self.noise_C / np.maximum(num_QC, 1.0))

    def _predict(self, x_QF: Array) -> tuple[Floats, Floats]:
        k = self._inside_KC.shape[0]
        found = nearest(self.x_NF, x_QF, k) if self.lists is None else self.lists.search(x_QF, k)
        index_QK = _in_order(*found)
        inside_KC = self._inside_KC[: index_QK.shape[1]]
        total_QC = np.einsum("qkc,kc->qc", self._filled_NC[index_QK], inside_KC)
        if self._known_NC is None:
            num_QC = np.broadcast_to(inside_KC.sum(axis=0), total_QC.shape)
        else:
            num_QC = np.einsum("qkc,kc->qc", self._known_NC[index_QK], inside_KC)
        has_any_QC = (num_QC > 0) & (np.count_nonzero(x_QF, axis=1) > 0)[:, None]
        value_QC = np.where(has_any_QC, total_QC / np.maximum(num_QC, 1.0), self.mean_C)
        return value_QC, np.where(has_any_QC, num_QC, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `local_means_from` reads it back."""
        lists = {} if self.lists is None else under("list.", self.lists.arrays())
        own: dict[str, np.ndarray] = {"x": self.x_NF.astype(np.float16), "k": self.k_C}
        own["value"] = self.value_NC.astype(np.float32)
        return {**own, "mean": self.mean_C, "noise": self.noise_C, **lists}


def local_means_from(arrays: Mapping[str, np.ndarray]) -> LocalMeans:
    """Rebuild from `LocalMeans.arrays`."""
    x_NF, lists = np.asarray(arrays["x"], np.float32), below("list.", arrays)
    return LocalMeans(
        x_NF,
        np.asarray(arrays["value"], np.float64),
        arrays["k"],
        arrays["mean"],
        arrays["noise"],
        lists_from(x_NF, lists) if lists else None,
    )


def learn_local_means(
    x_NF: Array, value_NC: Floats, options: tuple[int, ...], rng: np.random.Generator
) -> LocalMeans:
    """Give every column the k of least leave-one-out squared error, on at most 2,000 rows, and store all.

    They are stored as an artifact holds them: vectors in half precision (`halved`), values in single.
    """
    x_NF, value_NC = halved(x_NF), value_NC.astype(np.float32).astype(np.float64)
    usable = tuple(k for k in options if k < len(x_NF)) or (max(len(x_NF) - 1, 1),)
    rows = np.arange(len(x_NF))
    if rows.size > _SAMPLE:
        rows = np.sort(rng.choice(rows, _SAMPLE, replace=False))
    error_OC, num_C = _left_out_errors(x_NF, value_NC, rows, usable)
    best_C = error_OC.argmin(axis=0)
    noise_C = (error_OC[best_C, np.arange(best_C.size)] * num_C + _COIN) / (num_C + 1.0)
    k_C = np.array(usable, np.int64)[best_C]
    mean_C, lists = column_mean(value_NC), None
    if len(x_NF) >= _EXACT_BELOW:
        lists, order = build_lists(x_NF, k=int(k_C.max(initial=1)), recall=_RECALL, rng=rng)
        x_NF, value_NC = lists.x_NF, value_NC[order]
    return LocalMeans(x_NF, value_NC, k_C, mean_C, noise_C, lists)


def _left_out_errors(
    x_NF: Array, value_NC: Floats, rows: Ints, options: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Return the mean squared error of each option and column, (O, C), and the rows it is over, (C,)."""
    mean_C = np.nan_to_num(column_mean(value_NC))
    is_known_NC = np.isfinite(value_NC)
    filled_NC = np.where(is_known_NC, value_NC, 0.0)
    total_OC, num_C = np.zeros((len(options), value_NC.shape[1])), is_known_NC[rows].sum(axis=0)
    step = max(1, _CELLS // (options[-1] * max(value_NC.shape[1], 1)))
    for low in range(0, rows.size, step):
        part = rows[low : low + step]
        index_QK = _in_order(*nearest(x_NF, x_NF[part], options[-1] + 1))
        near_QK = _without(index_QK, part)
        if near_QK.shape[1] == 0:
            total_OC += _squares(mean_C[None] - filled_NC[part], is_known_NC[part])
            continue
        sum_QKC = np.cumsum(filled_NC[near_QK], axis=1)
        num_QKC = np.cumsum(is_known_NC[near_QK], axis=1)
        for place, k in enumerate(options):
            at = min(k, near_QK.shape[1]) - 1
            num_QC = num_QKC[:, at]
            guess_QC = np.where(num_QC > 0, sum_QKC[:, at] / np.maximum(num_QC, 1), mean_C)
            total_OC[place] += _squares(guess_QC - filled_NC[part], is_known_NC[part])
    return total_OC / np.maximum(num_C, 1), num_C.astype(np.float64)


def _squares(away_QC: Floats, is_known_QC: Bools) -> Floats:
    squares_C: Floats = (np.square(away_QC) * is_known_QC).sum(axis=0)
    return squares_C


def _in_order(index_QK: Ints, similarity_QK: Array) -> Ints:
    """Return the indices from the most similar on; rows whose similarity differs by rounding by number."""
    level_QK = np.round(similarity_QK.astype(np.float64), 5)
    order_QK = np.lexsort((index_QK, -level_QK), axis=1)
    ordered_QK: Ints = np.take_along_axis(index_QK, order_QK, axis=1)
    return ordered_QK


def _without(index_QK: Ints, row_Q: Ints) -> Ints:
    """Return each list without the row itself, or without its last entry where the row is not in it."""
    is_self_QK = index_QK == row_Q[:, None]
    is_self_QK[~is_self_QK.any(axis=1), -1] = True
    others_QK: Ints = index_QK[~is_self_QK].reshape(len(row_Q), -1)
    return others_QK
