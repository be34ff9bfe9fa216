"""This module clusters vectors by k-means with seeded k-means++ centres.

Source: S. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2), 1982;
D. Arthur, S. Vassilvitskii, "k-means++", SODA 2007, for the first centres.
"""

from __future__ import annotations

import numpy as np

from turnout.core.outcomes import Ints
from turnout.routers.neighbours import Array

_ROUNDS = 20
_SCAN = 1 << 22
_ROUNDING = 1e-6
"""Share of the largest squared length that rounding may add to a squared distance."""


def kmeans(x_NF: Array, k: int, rng: np.random.Generator, *, rounds: int = _ROUNDS) -> Array:
    """Return the centres, float32 of shape (K, F): k of them, or one per distinct vector if that is less.

    A centre that loses all its vectors stays where it was. The sum of squared distances never grows from
    one round to the next. Cost: O(N K F) per round.
    """
    x_NF = np.ascontiguousarray(x_NF, np.float32)
    centre_KF = _first_centres(x_NF, k, rng)
    label_N = closest(x_NF, centre_KF)
    for _ in range(rounds):
        centre_KF = _means(x_NF, label_N, centre_KF)
        before_N, label_N = label_N, closest(x_NF, centre_KF)
        if np.array_equal(before_N, label_N):
            break
    return centre_KF


def half_squares(centre_KF: Array) -> Array:
    """Return half the squared length of each centre, shape (K,): what `closest` needs of them."""
    half_K: Array = 0.5 * np.square(centre_KF).sum(axis=1)
    return half_K


def closest(x_NF: Array, centre_KF: Array, half_K: Array | None = None) -> Ints:
    """Return the nearest centre of each vector, shape (N,); the first one of a tie.

    Who asks again and again about the same centres gives their `half_squares`.
    """
    if half_K is None:
        half_K = half_squares(centre_KF)
    step = max(1, _SCAN // max(centre_KF.shape[0], 1))
    label_N = np.zeros(x_NF.shape[0], np.int64)
    for low in range(0, x_NF.shape[0], step):
        label_N[low : low + step] = (x_NF[low : low + step] @ centre_KF.T - half_K).argmax(axis=1)
    return label_N


def distances(x_NF: Array, centre_KF: Array) -> Array:
    """Return the squared distances of vectors to centres, not negative, shape (N, K)."""
    cross_NK = x_NF @ centre_KF.T
    squares_NK = np.square(x_NF).sum(axis=1)[:, None] + np.square(centre_KF).sum(axis=1) - 2.0 * cross_NK
    away_NK: Array = np.maximum(squares_NK, np.float32(0.0))
    return away_NK


def one_hot(label_N: Ints, num: int) -> Array:
    """Return the membership of each row, float32 of shape (N, K); a label below 0 is of no cluster."""
    share_NK = np.zeros((label_N.size, num), np.float32)
    inside = np.flatnonzero(label_N >= 0)
    share_NK[inside, label_N[inside]] = 1.0
    return share_NK


def _first_centres(x_NF: Array, k: int, rng: np.random.Generator) -> Array:
    """Draw each centre with a probability in proportion to its squared distance from those before."""
    rows = [int(rng.integers(x_NF.shape[0]))]
    # Vectors that differ by rounding alone are one vector: no centre is drawn from them.
    rounding = _ROUNDING * float(np.square(x_NF).sum(axis=1).max())
    away_N = np.full(x_NF.shape[0], np.inf)
    while True:
        new_N = distances(x_NF, x_NF[rows[-1:]])[:, 0].astype(np.float64)
        away_N = np.minimum(away_N, np.where(new_N <= rounding, 0.0, new_N))
        if len(rows) >= k or not away_N.any():
            break
        rows.append(int(rng.choice(away_N.size, p=away_N / away_N.sum())))
    first_KF: Array = x_NF[rows]
    return first_KF


def _means(x_NF: Array, label_N: Ints, old_KF: Array) -> Array:
    order = np.argsort(label_N, kind="stable")
    filled, begin, count = np.unique(label_N[order], return_index=True, return_counts=True)
    centre_KF = old_KF.copy()
    centre_KF[filled] = np.add.reduceat(x_NF[order], begin, axis=0) / count[:, None].astype(np.float32)
    return centre_KF
