"""This module turns tokens into a vector by gathering rows: the part of the text embedder that answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise, repeat

import numpy as np

from turnout.features.sparse import Array
from turnout.features.tokens import grams
from turnout.features.vocabulary import Ints, pair_keys

_AT_ONCE = 64
"""Texts whose pairs are searched together: enough to share the calls, few enough to stay in the cache."""

_CACHE_WORDS = 1 << 14
_CACHE_LETTERS = 64
_MAX_COUNT = 255
_DAMPED = [0.0, *(1.0 + math.log(n) for n in range(1, _MAX_COUNT + 1))]
DAMPED = np.array(_DAMPED, np.float32)
"""Sublinear term frequency, `1 + log(n)`, cut at 255 repetitions."""


@dataclass(slots=True)
class WordRows:
    """Learned rows and the look-ups into them."""

    words: list[str]
    pairs: Ints
    """Keys of the word pairs (`vocabulary.pair_tokens`), ascending."""
    grams: list[str]
    table_VF: Array
    """Rows of the words, then of the pairs, idf included; shape (V, F)."""
    gram_table_GF: Array
    """Projected character n-grams, shape (G, F)."""
    gram_idf: Array
    """Shape (G,)."""
    unknown_idf: float
    """The idf of a word that no document holds."""
    gram_sizes: tuple[int, int]
    _word_rank: dict[str, int] = field(init=False)
    _pair_keys: Ints = field(init=False)
    """`pairs`, then a key that no pair has, so that a search never falls off the end."""
    _gram_row: dict[str, int] = field(init=False)
    _gram_idf: list[float] = field(init=False)
    _unknown: dict[str, tuple[list[int], list[float]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Rounded once, here, to what is stored: a loaded embedder gives the same vectors to the bit.
        self.table_VF = self.table_VF.astype(np.float16).astype(np.float32)
        self.gram_table_GF = self.gram_table_GF.astype(np.float16).astype(np.float32)
        self._word_rank = {word: rank for rank, word in enumerate(self.words)}
        self._pair_keys = np.append(self.pairs, np.iinfo(np.int64).max)
        self._gram_idf = self.gram_idf.tolist()
        self._gram_row = {gram: row for row, gram in enumerate(self.grams)}

    @property
    def num_features(self) -> int:
        """Length of a vector, F."""
        return int(self.table_VF.shape[1])

    def add_to(self, out: Array, tokens: list[str]) -> None:
        """Write the vector of `tokens` into `out`, zeros of shape (F,); its length is 1, or 0."""
        ranks = self._ranks(tokens)
        self._add(out, tokens, ranks, self._pair_rows(ranks))

    def add_all(self, x_QF: Array, tokens_Q: Iterable[list[str]]) -> None:
        """Do what `add_to` does for each text, to the bit; the pairs of several texts are found at once."""
        texts = iter(tokens_Q)
        for at in range(0, x_QF.shape[0], _AT_ONCE):
            some = list(islice(texts, min(_AT_ONCE, x_QF.shape[0] - at)))
            ranks_Q = [self._ranks(tokens) for tokens in some]
            for out, tokens, ranks, pairs in zip(
                x_QF[at:], some, ranks_Q, self._pair_rows_of(ranks_Q), strict=False
            ):
                self._add(out, tokens, ranks, pairs)

    def _ranks(self, tokens: list[str]) -> list[int]:
        return list(map(self._word_rank.get, tokens, repeat(-1)))

    def _add(self, out: Array, tokens: list[str], ranks: list[int], pairs: list[int]) -> None:
        count = Counter(ranks + pairs)  # counting is where the time goes
        count.pop(-1, None)
        if count:
            times = np.fromiter(count.values(), np.int64, len(count))
            rows = np.fromiter(count, np.int64, len(count))
            DAMPED.take(times, mode="clip").dot(self.table_VF.take(rows, axis=0, mode="clip"), out=out)
        if -1 in ranks:
            unknown = [token for token, rank in zip(tokens, ranks, strict=True) if rank < 0]
            self._add_unknown(out, Counter(unknown))
        length = math.sqrt(float(out.dot(out)))
        if length > 0.0:
            out /= length

    def _pair_rows(self, ranks: list[int]) -> list[int]:
        """Return the rows of the known pairs of neighbours, in order.

        By search in one sorted array: a dictionary of as many numbers lies scattered over ten times the
        memory, and a prompt touches a new part of it with every pair.
        """
        keys = pair_keys(np.array(ranks, np.int64), len(self.words))
        place = self._pair_keys.searchsorted(keys)
        place = place[self._pair_keys.take(place) == keys]
        rows: list[int] = (place + len(self.words)).tolist()
        return rows

    def _pair_rows_of(self, ranks_Q: list[list[int]]) -> list[list[int]]:
        """Return `_pair_rows` of each text: one search, with an unknown word between every two of them."""
        if len(ranks_Q) < 2:
            return [self._pair_rows(ranks) for ranks in ranks_Q]
        joined: list[int] = []
        ends = []
        for ranks in ranks_Q:
            joined += ranks
            joined.append(-1)
            ends.append(len(joined))
        keys = pair_keys(np.array(joined, np.int64), len(self.words))
        place = self._pair_keys.searchsorted(keys)
        hits = np.flatnonzero(self._pair_keys.take(place) == keys)
        rows: list[int] = (place[hits] + len(self.words)).tolist()
        cuts = [0, *hits.searchsorted(ends).tolist()]
        return [rows[low:high] for low, high in pairwise(cuts)]

    def _add_unknown(self, out: Array, tokens: Counter[str]) -> None:
        """Add the words without a row: each is the mean direction of its character n-grams.

        All their n-grams are gathered at once; a call for each word would cost more than the sums.
        """
        rows: list[int] = []
        weights: list[float] = []
        for token, number in tokens.items():
            which, share = self._grams_of(token)
            damped = _DAMPED[min(number, _MAX_COUNT)]
            rows += which
            weights += [damped * part for part in share]
        if rows:
            out += np.dot(np.array(weights, np.float32), self.gram_table_GF.take(rows, axis=0))

    def _grams_of(self, token: str) -> tuple[list[int], list[float]]:
        """Return the rows of a word's known n-grams and their weights, remembered for short words."""
        found = self._unknown.get(token)
        if found is None:
            row, idf = self._gram_row.get, self._gram_idf
            which = [i for gram in grams(token, *self.gram_sizes) if (i := row(gram)) is not None]
            length = math.sqrt(sum([idf[i] * idf[i] for i in which])) or 1.0
            scale = self.unknown_idf / length
            found = which, [scale * idf[i] for i in which]
            if len(token) <= _CACHE_LETTERS:
                if len(self._unknown) >= _CACHE_WORDS:
                    self._unknown.clear()
                self._unknown[token] = found
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything learned as numeric arrays, rows in half precision; see `rows_from_arrays`."""
        return {
            "words": _pack(self.words),
            "pairs": self.pairs,
            "grams": _pack(self.grams),
            "table": self.table_VF.astype(np.float16),
            "gram_table": self.gram_table_GF.astype(np.float16),
            "gram_idf": self.gram_idf,
            "unknown_idf": np.array([self.unknown_idf]),
        }


def rows_from_arrays(arrays: Mapping[str, np.ndarray], gram_sizes: tuple[int, int]) -> WordRows:
    """Rebuild from `WordRows.arrays`."""
    return WordRows(
        words=_unpack(arrays["words"]),
        pairs=arrays["pairs"],
        grams=_unpack(arrays["grams"]),
        table_VF=arrays["table"],
        gram_table_GF=arrays["gram_table"],
        gram_idf=arrays["gram_idf"],
        unknown_idf=float(arrays["unknown_idf"][0]),
        gram_sizes=gram_sizes,
    )


def _pack(tokens: list[str]) -> np.ndarray:
    # A token holds no line break (features.tokens), and may hold a lone surrogate.
    return np.frombuffer("\n".join(tokens).encode("utf-8", "surrogatepass"), np.uint8)


def _unpack(packed: np.ndarray) -> list[str]:
    text = packed.tobytes().decode("utf-8", "surrogatepass")
    return text.split("\n") if text else []
