"""This module turns tokens into a vector by gathering rows: the part of the text embedder that answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise, repeat

import numpy as np

from turnout.features.sparse import Array
from turnout.features.tokens import grams
from turnout.features.vocabulary import Floats, Ints, pair_keys

_AT_ONCE = 64
"""Texts that are read together: enough to share the calls, few enough to stay in the cache."""

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
    _word_rank: dict[str | None, int] = field(init=False)
    _pair_keys: Ints = field(init=False)
    """`pairs`, then a key that no pair has, so that a search never falls off the end."""
    _gram_row: dict[str, int] = field(init=False)
    _gram_idf: list[float] = field(init=False)
    _unknown: dict[str, tuple[Ints, Floats]] = field(init=False, default_factory=dict)

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

    def add_all(self, x_QF: Array, tokens_Q: Iterable[list[str]]) -> None:
        """Write the vector of each text into its row of `x_QF`, zeros of shape (Q, F); its length is 1, or 0.

        A text has the same vector to the bit whatever others are read with it.
        """
        texts = iter(tokens_Q)
        for at in range(0, x_QF.shape[0], _AT_ONCE):
            some = list(islice(texts, min(_AT_ONCE, x_QF.shape[0] - at)))
            self._add(x_QF[at : at + len(some)], some)

    def _add(self, x_QF: Array, tokens_Q: list[list[str]]) -> None:
        # One call of numpy for all texts wherever it can be: a call costs more than the work of one prompt.
        joined: list[str | None] = []
        for tokens in tokens_Q:
            joined += tokens
            joined.append(None)  # no word, so that no pair reaches from one text into the next
        rank_T = np.fromiter(map(self._word_rank.get, joined, repeat(-1)), np.int64, len(joined))
        self._add_known(x_QF, rank_T, [len(tokens) + 1 for tokens in tokens_Q])
        unknown = (rank_T < 0).nonzero()[0].tolist()
        if len(unknown) > len(tokens_Q):
            self._add_unknown(x_QF, joined, unknown)
        lengths = [math.sqrt(float(x_F.dot(x_F))) or 1.0 for x_F in x_QF]
        x_QF /= np.array(lengths, np.float32)[:, None]

    def _add_known(self, x_QF: Array, rank_T: Ints, num_tokens: list[int]) -> None:
        """Add the rows of known words and pairs, each as often as the damped count of it says."""
        num_rows, num_words = self.table_VF.shape[0], len(self.words)
        if not num_rows:
            return
        first_Q = np.arange(0, (len(num_tokens) + 1) * num_rows, num_rows)
        first_T = first_Q[:-1].repeat(num_tokens)
        keys = pair_keys(rank_T, num_words)
        # By search in one sorted array: a dictionary of as many numbers lies scattered over ten times the
        # memory, and a prompt touches a new part of it with every pair.
        place = self._pair_keys.searchsorted(keys)
        is_pair = self._pair_keys.take(place) == keys
        place += first_T[:-1]
        place += num_words
        cells = np.concatenate([(first_T + rank_T)[rank_T >= 0], place[is_pair]])
        if not cells.size:
            return
        # Sorting counts what is equal at a fraction of the price of a dictionary.
        cells.sort()
        is_new = np.empty(cells.size + 1, np.bool_)
        is_new[0] = is_new[-1] = True
        np.not_equal(cells[1:], cells[:-1], out=is_new[1:-1])
        begins = is_new.nonzero()[0]
        weights = DAMPED.take(begins[1:] - begins[:-1], mode="clip")
        cells = cells.take(begins[:-1])
        cuts = cells.searchsorted(first_Q).tolist()
        for x_F, first, (low, high) in zip(x_QF, first_Q.tolist(), pairwise(cuts), strict=False):
            if high > low:
                rows = self.table_VF.take(cells[low:high] - first, axis=0, mode="clip")
                weights[low:high].dot(rows, out=x_F)

    def _add_unknown(self, x_QF: Array, joined: list[str | None], unknown: list[int]) -> None:
        """Add the words without a row: each is the mean direction of its character n-grams.

        `unknown` holds their places in `joined`, and those of the ends of texts. All their n-grams are
        gathered at once; a call for each word would cost more than the sums.
        """
        rows: list[Ints] = []
        weights: list[Floats] = []
        cuts, num_grams = [0], 0
        count: dict[str, int] = {}
        for at in unknown:
            token = joined[at]
            if token is not None:
                count[token] = count.get(token, 0) + 1
                continue
            for word, number in count.items():
                which, share = self._grams_of(word)
                rows.append(which)
                weights.append(share if number == 1 else _DAMPED[min(number, _MAX_COUNT)] * share)
                num_grams += which.size
            count.clear()
            cuts.append(num_grams)
        weight_T = np.concatenate(weights).astype(np.float32)
        gram_TF = self.gram_table_GF.take(np.concatenate(rows), axis=0)
        for x_F, (low, high) in zip(x_QF, pairwise(cuts), strict=True):
            if high > low:
                x_F += weight_T[low:high].dot(gram_TF[low:high])

    def _grams_of(self, token: str) -> tuple[Ints, Floats]:
        """Return the rows of a word's known n-grams and their weights, remembered for short words."""
        found = self._unknown.get(token)
        if found is None:
            row, idf = self._gram_row.get, self._gram_idf
            which = [i for gram in grams(token, *self.gram_sizes) if (i := row(gram)) is not None]
            length = math.sqrt(sum([idf[i] * idf[i] for i in which])) or 1.0
            scale = self.unknown_idf / length
            found = np.array(which, np.int64), np.array([scale * idf[i] for i in which])
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
