"""This module finds the stored vectors most similar to a query: by brute force, or in inverted lists.

Source: J. Sivic, A. Zisserman, "Video Google", ICCV 2003, for inverted lists; H. Jegou et al., "Product
quantization for nearest neighbor search", TPAMI 33(1), 2011, section IV, for the coarse quantiser.
Vectors have length 1 or 0, so that the inner product is the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnout.core.outcomes import Ints

Array = npt.NDArray[np.float32]

_SCAN = 1 << 22
_ROUNDS = 8
_LISTS_PER_ROOT = 0.5
_SAMPLE = 200


def halved(x_NF: Array) -> Array:
    """Return vectors rounded to half precision, which is how artifacts hold them: half the size on disk.

    They are rounded when they are stored, so that a fitted router and its artifact answer the same. A cosine
    moves by less than 0.001.
    """
    rounded: Array = x_NF.astype(np.float16).astype(np.float32)
    return rounded


def nearest(x_NF: Array, x_QF: Array, k: int) -> tuple[Ints, Array]:
    """Return indices and similarities of the k most similar rows, shape (Q, K), in no order: the truth."""
    num, k = x_NF.shape[0], min(k, x_NF.shape[0])
    index_QK = np.empty((x_QF.shape[0], k), np.int64)
    similarity_QK = np.empty((x_QF.shape[0], k), np.float32)
    step = max(1, _SCAN // max(num, 1))
    for low in range(0, x_QF.shape[0], step):
        found = x_QF[low : low + step] @ x_NF.T
        index = np.argpartition(found, num - k, axis=1)[:, num - k :]
        index_QK[low : low + step] = index
        similarity_QK[low : low + step] = np.take_along_axis(found, index, axis=1)
    return index_QK, similarity_QK


@dataclass(frozen=True, slots=True)
class Lists:
    """Vectors in inverted lists: list l is the run `x_NF[start[l]:start[l + 1]]`."""

    x_NF: Array
    """Vectors, list after list."""
    start: Ints
    """Shape (L + 1,)."""
    centre_LF: Array
    """One direction per list."""
    num_probes: int
    """Lists that a query looks into."""

    @property
    def pay(self) -> bool:
        """Whether a query is spared so many lists that looking into the others is quicker than brute force.

        Vectors of words hardly cluster: half of the lists, one product for each, take as long as one product
        for all, and all of them find every neighbour.
        """
        num_lists: int = self.centre_LF.shape[0]
        return 2 * self.num_probes <= num_lists

    def search(self, x_QF: Array, k: int) -> tuple[Ints, Array]:
        """Return what `nearest` returns, up to the recall that `num_probes` gives."""
        k = min(k, self.x_NF.shape[0])
        index_QK = np.empty((x_QF.shape[0], k), np.int64)
        similarity_QK = np.empty((x_QF.shape[0], k), np.float32)
        for query, x_F in enumerate(x_QF):
            index_QK[query], similarity_QK[query] = self._search_one(x_F, k)
        return index_QK, similarity_QK

    def _search_one(self, x_F: Array, k: int) -> tuple[Ints, Array]:
        closeness = self.centre_LF @ x_F
        num_lists = closeness.size
        num_probes = self.num_probes
        while True:
            probes = np.argpartition(closeness, num_lists - num_probes)[num_lists - num_probes :]
            low, size = self.start[probes], self.start[probes + 1] - self.start[probes]
            if num_probes == num_lists or size.sum() >= k:
                break
            num_probes = min(2 * num_probes, num_lists)
        runs = [self.x_NF[a : a + n] @ x_F for a, n in zip(low.tolist(), size.tolist(), strict=True)]
        similarity = np.concatenate(runs)
        best = np.argpartition(similarity, similarity.size - k)[similarity.size - k :]
        offset = np.cumsum(size) - size
        run = np.searchsorted(offset, best, side="right") - 1
        return best - offset[run] + low[run], similarity[best]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the vectors by name; `lists_from` reads it back."""
        return {"start": self.start, "centre": self.centre_LF, "num_probes": np.array([self.num_probes])}


def lists_from(x_NF: Array, arrays: Mapping[str, np.ndarray]) -> Lists:
    """Rebuild from the vectors and `Lists.arrays`."""
    return Lists(x_NF, arrays["start"], arrays["centre"], int(arrays["num_probes"][0]))


def build_lists(x_NF: Array, *, k: int, recall: float, rng: np.random.Generator) -> tuple[Lists, Ints]:
    """Cluster the vectors by spherical k-means; return the lists and which row each of their vectors was.

    There are about sqrt(N) / 2 lists: fewer and longer ones cost fewer calls for the same rows. A query
    probes the smallest number of them in which stored vectors find the share `recall` of their k nearest.
    """
    num = x_NF.shape[0]
    num_lists = max(1, round(_LISTS_PER_ROOT * np.sqrt(num)))
    centre_LF = x_NF[np.sort(rng.choice(num, num_lists, replace=False))].copy()
    for _ in range(_ROUNDS):
        label_N = _closest(x_NF, centre_LF)
        centre_LF = _centres(x_NF, label_N, centre_LF)
    label_N = _closest(x_NF, centre_LF)
    row = np.argsort(label_N, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(label_N, minlength=num_lists))])
    sample_QF = x_NF[rng.choice(num, min(_SAMPLE, num), replace=False)]
    index_QK, _ = nearest(x_NF, sample_QF, k + 1)
    num_probes = _enough_probes(sample_QF @ centre_LF.T, label_N[index_QK], recall)
    return Lists(x_NF[row], start, centre_LF, num_probes), row


def _enough_probes(closeness_QL: Array, true_list_QK: Ints, recall: float) -> int:
    """Return the number of probes, from the rank of the list that holds each true neighbour."""
    order_QL = np.argsort(-closeness_QL, axis=1)
    rank_QL = np.empty_like(order_QL)
    np.put_along_axis(rank_QL, order_QL, np.arange(order_QL.shape[1])[None, :], axis=1)
    return int(np.quantile(np.take_along_axis(rank_QL, true_list_QK, axis=1), recall, method="higher")) + 1


def _closest(x_NF: Array, centre_LF: Array) -> Ints:
    step = max(1, _SCAN // centre_LF.shape[0])
    parts = [(x_NF[low : low + step] @ centre_LF.T).argmax(axis=1) for low in range(0, x_NF.shape[0], step)]
    return np.concatenate(parts)


def _centres(x_NF: Array, label_N: Ints, old_LF: Array) -> Array:
    order = np.argsort(label_N, kind="stable")
    filled, begin = np.unique(label_N[order], return_index=True)
    total = np.add.reduceat(x_NF[order], begin, axis=0)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    centre_LF = old_LF.copy()
    centre_LF[filled] = np.where(length > 0, total / np.maximum(length, 1e-12), old_LF[filled])
    return centre_LF
