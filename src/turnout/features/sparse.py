"""This module multiplies sparse rows by dense matrices in numpy, and finds their leading directions.

Source: N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53(2),
2011, algorithms 4.3 (range by power iteration) and 5.1 (direct SVD).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """A sparse matrix of shape (R, C) by rows: row r holds `column[start[r]:start[r + 1]]`."""

    start: Index
    """Shape (R + 1,)."""
    column: Index
    """Shape (nnz,)."""
    value: Array
    """Shape (nnz,)."""
    num_columns: int

    @property
    def num_rows(self) -> int:
        """Number of rows, R."""
        return int(self.start.size - 1)

    def times(self, dense: Array) -> Array:
        """Return `self @ dense` of shape (R, K) for `dense` of shape (C, K)."""
        # One small product per row: a gather that stays in cache, where numpy's reduceat would stream.
        out = np.zeros((self.num_rows, dense.shape[1]), np.float32)
        start = self.start.tolist()
        for row, (low, high) in enumerate(pairwise(start)):
            if high > low:
                np.dot(self.value[low:high], dense.take(self.column[low:high], axis=0), out=out[row])
        return out

    def unit_rows(self) -> Rows:
        """Return the matrix with every row divided by its length; empty rows stay empty."""
        size = np.diff(self.start)
        row = np.repeat(np.arange(self.num_rows), size)
        length = np.sqrt(
            np.bincount(row, weights=self.value.astype(np.float64) ** 2, minlength=self.num_rows)
        )
        value = (self.value / np.repeat(length, size)).astype(np.float32)
        return Rows(self.start, self.column, value, self.num_columns)

    def used_columns(self) -> tuple[Rows, Index]:
        """Return the matrix without its empty columns, and which columns those that stay were."""
        used, column = np.unique(self.column, return_inverse=True)
        return Rows(self.start, column.astype(np.int64), self.value, used.size), used

    def transposed(self) -> Rows:
        """Return the transpose, shape (C, R)."""
        order = np.argsort(self.column, kind="stable")
        row = np.repeat(np.arange(self.num_rows), np.diff(self.start))
        return rows_from(self.column[order], row[order], self.value[order], (self.num_columns, self.num_rows))

    def take(self, rows: Index) -> Rows:
        """Return the given rows, in that order."""
        size = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(size)])
        source = np.arange(start[-1]) + np.repeat(self.start[rows] - start[:-1], size)
        return Rows(start, self.column[source], self.value[source], self.num_columns)


def rows_from(row: Index, column: Index, value: npt.ArrayLike, shape: tuple[int, int]) -> Rows:
    """Build the matrix from entries that are sorted by row; `shape` is (R, C)."""
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))]).astype(np.int64)
    return Rows(start, column, np.asarray(value, np.float32), shape[1])


@dataclass(frozen=True, slots=True)
class Product:
    """The product `left @ right` of two sparse matrices, never multiplied out."""

    left: Rows
    right: Rows

    @property
    def num_rows(self) -> int:
        """Number of rows of `left`."""
        return self.left.num_rows

    @property
    def num_columns(self) -> int:
        """Number of columns of `right`."""
        return self.right.num_columns

    def times(self, dense: Array) -> Array:
        """Return `left @ (right @ dense)`."""
        return self.left.times(self.right.times(dense))

    def transposed(self) -> Product:
        """Return the transpose."""
        return Product(self.right.transposed(), self.left.transposed())


def right_directions(
    rows: Rows | Product, *, num: int, num_powers: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the leading right singular vectors, shape (C, K), and values, shape (K,), K <= num."""
    back = rows.transposed()
    num_tries = min(num + 10, rows.num_rows, rows.num_columns)
    basis = rows.times(rng.standard_normal((rows.num_columns, num_tries), dtype=np.float32))
    for _ in range(num_powers):
        basis = rows.times(back.times(_orthonormal(basis)))
    small = back.times(_orthonormal(basis))
    # small is (C, K'), tall: its SVD through the (K', K') Gram matrix in float64 is exact enough here.
    gram = small.astype(np.float64).T @ small
    values, vectors = np.linalg.eigh(gram)
    keep = np.argsort(-values)[: min(num, num_tries)]
    keep = keep[values[keep] > 1e-8 * max(values.max(), 1e-30)] if values.size else keep
    sigma = np.sqrt(values[keep])
    right = (small @ (vectors[:, keep] / sigma)).astype(np.float32)
    return right, sigma.astype(np.float32)


def _orthonormal(tall: Array) -> Array:
    return np.linalg.qr(tall.astype(np.float64))[0].astype(np.float32)
