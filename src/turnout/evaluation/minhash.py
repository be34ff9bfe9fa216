"""This module finds pairs of similar sets among many: MinHash signatures, bands, then the exact check.

Source: A. Broder (1997) for the signatures; the banding is that of J. Leskovec, A. Rajaraman and
J. Ullman, "Mining of Massive Datasets", section 3.4: with b bands of r rows a pair of Jaccard similarity
s is looked at with probability 1 - (1 - s^r)^b, for the 16 x 4 here 0.9998 at s = 0.8. Every pair that is
looked at is measured exactly, so there are no false pairs.
Cost: O(N x 64) for N shingles in all, plus the pairs; everything is vectorised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.rng import make_rng

if TYPE_CHECKING:
    import numpy.typing as npt

    from turnout.core.outcomes import Floats, Ints
    from turnout.evaluation.shingles import ShingleSets

BANDS = 16
ROWS = 4
MAX_NEIGHBOURS = 32
"""In a bucket each text is compared with this many that follow, so that no bucket costs a square."""
PAIR_CELLS = 4_000_000
"""Shingles looked up at one time in the exact check."""


def similar_pairs(sets: ShingleSets, *, threshold: float, seed: int) -> tuple[Ints, Ints, Floats]:
    """Return pairs (first, second, similarity) of texts with Jaccard similarity >= threshold.

    Shapes: (N,) each, first < second, sorted. Empty sets are similar to nothing.
    """
    filled_T = np.flatnonzero(sets.size_T)
    if filled_T.size < 2:
        none = np.empty(0, np.int64)
        return none, none, np.empty(0)
    signature_TK = _signatures(sets, filled_T, seed)
    first_N, second_N = _bucket_pairs(signature_TK, filled_T)
    similarity_N = _jaccard(sets, first_N, second_N)
    keep_N = similarity_N >= threshold
    return first_N[keep_N], second_N[keep_N], similarity_N[keep_N]


def _signatures(sets: ShingleSets, filled_T: Ints, seed: int) -> npt.NDArray[np.uint32]:
    rng = make_rng(seed, "minhash")
    size = BANDS * ROWS
    # Multiply-shift hashing: an odd multiplier and the upper half of the product.
    factor_K = rng.integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    starts = (np.cumsum(sets.size_T) - sets.size_T)[filled_T]
    signature_TK = np.empty((filled_T.size, size), dtype=np.uint32)
    shingle_N = sets.shingle_N.astype(np.uint64)
    for column in range(size):
        hashed_N = (shingle_N * factor_K[column] >> np.uint64(32)).astype(np.uint32)
        signature_TK[:, column] = np.minimum.reduceat(hashed_N, starts)
    return signature_TK


def _bucket_pairs(signature_TK: npt.NDArray[np.uint32], filled_T: Ints) -> tuple[Ints, Ints]:
    num_texts = int(filled_T[-1]) + 1
    found: list[Ints] = []
    for band in range(BANDS):
        rows = np.ascontiguousarray(signature_TK[:, band * ROWS : (band + 1) * ROWS])
        keys_T = rows.view(np.dtype((np.void, rows.itemsize * ROWS))).ravel()
        bucket_T = np.unique(keys_T, return_inverse=True)[1]
        order = np.argsort(bucket_T, kind="stable")
        bucket, text = bucket_T[order], filled_T[order]
        for ahead in range(1, MAX_NEIGHBOURS + 1):
            same = np.flatnonzero(bucket[ahead:] == bucket[:-ahead])
            if not same.size:
                break
            found.append(text[same] * num_texts + text[same + ahead])
    keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return keys // num_texts, keys % num_texts


def _jaccard(sets: ShingleSets, first_N: Ints, second_N: Ints) -> Floats:
    """Look every shingle of the first text up among those of the second."""
    starts_T = np.cumsum(sets.size_T) - sets.size_T
    shared_N = np.zeros(first_N.size)
    width = int(sets.shingle_N.max()) + 1
    key_N = sets.text_N * width + sets.shingle_N
    ends = np.cumsum(sets.size_T[first_N])
    cuts = np.searchsorted(ends, np.arange(PAIR_CELLS, ends[-1] if ends.size else 0, PAIR_CELLS))
    for part in np.split(np.arange(first_N.size), cuts):
        size = sets.size_T[first_N[part]]
        pair = np.repeat(np.arange(part.size), size)
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        shingle = sets.shingle_N[np.repeat(starts_T[first_N[part]], size) + offset]
        wanted = second_N[part][pair] * width + shingle
        place = np.minimum(np.searchsorted(key_N, wanted), key_N.size - 1)
        shared_N[part] = np.bincount(pair[key_N[place] == wanted], minlength=part.size)
    union_N = sets.size_T[first_N] + sets.size_T[second_N] - shared_N
    similarity_N: Floats = shared_N / union_N
    return similarity_N
