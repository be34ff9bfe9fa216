"""This module turns tokens into a vector by gathering rows: the part of the text embedder that answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from turnout.features.byte_rows import from_bytes, to_bytes
from turnout.features.pair_index import PairIndex
from turnout.features.sparse import Array
from turnout.features.tokens import grams
from turnout.features.vocabulary import Ints, pair_keys
from turnout.features.word_memory import END, NO_WORD, Memory, rows_of

_AT_ONCE = 64
"""Texts that are read together: enough to share the calls, few enough to stay in the cache."""

_CODE_BYTES = 4
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
    is_half: bool = False
    """Rows of half precision, as older artifacts hold them, and not of a byte a number."""
    _word_rank: dict[str | None, int] = field(init=False)
    _pair_index: PairIndex = field(init=False)
    _gram_row: dict[str, int] = field(init=False)
    _gram_idf: list[float] = field(init=False)
    _memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        # Rounded once, here, to what is stored: a loaded embedder gives the same vectors to the bit.
        self.table_VF = self._rounded(self.table_VF)
        self.gram_table_GF = self._rounded(self.gram_table_GF)
        self._word_rank = {word: rank for rank, word in enumerate(self.words)}
        self._pair_index = PairIndex(self.pairs)
        self._gram_idf = self.gram_idf.tolist()
        self._gram_row = {gram: row for row, gram in enumerate(self.grams)}
        self._memory = Memory(self)

    @property
    def num_features(self) -> int:
        """Length of a vector, F."""
        return int(self.table_VF.shape[1])

    def add_all(self, x_QF: Array, texts: Iterable[str]) -> None:
        """Write the vector of each text into its row of `x_QF`, zeros of shape (Q, F); its length is 1, or 0.

        A text has the same vector to the bit whatever others are read with it, or were before.
        """
        memory, parts, at = self._memory, list[bytes](), 0
        for text in texts:
            parts.append(memory.read(text))
            if len(parts) == _AT_ONCE or memory.is_full:
                self._add(x_QF[at : at + len(parts)], parts, memory)
                at, parts = at + len(parts), []
                if memory.is_full:
                    memory = self._memory = Memory(self)
        if parts:
            self._add(x_QF[at:], parts, memory)

    def _add(self, x_QF: Array, parts: list[bytes], memory: Memory) -> None:
        # One call of numpy for all texts wherever it can be: a call costs more than the work of one prompt.
        # Between two texts stands an end, which is no word, so that no pair reaches from one into the next.
        code_T = np.frombuffer(END.join([*parts, b""]), np.int32).astype(np.int64)
        num_tokens = [len(part) // _CODE_BYTES + 1 for part in parts]
        self._add_known(x_QF, np.maximum(code_T, NO_WORD), num_tokens)
        unknown = (code_T < NO_WORD).nonzero()[0]
        if unknown.size:
            cuts = unknown.searchsorted(np.cumsum([0, *num_tokens]))
            self._add_unknown(x_QF, rows_of(code_T.take(unknown)), cuts, memory.vectors)
        lengths = [math.sqrt(float(x_F.dot(x_F))) or 1.0 for x_F in x_QF]
        x_QF /= np.array(lengths, np.float32)[:, None]

    def _add_known(self, x_QF: Array, rank_T: Ints, num_tokens: list[int]) -> None:
        """Write the sums of the rows of known words and pairs, each weighed by the damped count of it."""
        num_rows, num_words = self.table_VF.shape[0], len(self.words)
        if not num_rows:
            return
        first_Q = np.arange(0, (len(num_tokens) + 1) * num_rows, num_rows)
        first_T = first_Q[:-1].repeat(num_tokens)
        keys = pair_keys(rank_T, num_words)
        place, is_pair = self._pair_index.find(keys)
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

    def _add_unknown(self, x_QF: Array, row_T: Ints, cuts: Ints, vectors: Array) -> None:
        """Add the vectors of the words without a row, summed in the order in which they stand in each text.

        `cuts` says where each text begins in `row_T`, and where the last one ends.
        """
        some_Q = (cuts[1:] > cuts[:-1]).nonzero()[0]
        sum_QF = np.add.reduceat(vectors.take(row_T, axis=0), cuts.take(some_Q), axis=0)
        marks = np.sort(cuts.searchsorted(np.arange(row_T.size), side="right") * len(vectors) + row_T)
        if (marks[1:] == marks[:-1]).any():
            for place, text in enumerate(some_Q.tolist()):
                rows = row_T[cuts[text] : cuts[text + 1]].tolist()
                count = dict.fromkeys(rows, 0)
                if len(count) < len(rows):
                    for row in rows:
                        count[row] += 1
                    weights = DAMPED.take(list(count.values()), mode="clip")
                    sum_QF[place] = weights.dot(vectors.take(list(count), axis=0))
        x_QF[some_Q] += sum_QF

    def rank_of(self, word: str) -> int | None:
        """Return a word's row; None for one that has none of its own."""
        return self._word_rank.get(word)

    def vector_of(self, word: str) -> Array:
        """Return what a word without a row adds: the mean direction of its n-grams, float32 (F,)."""
        row, idf = self._gram_row.get, self._gram_idf
        which = [i for gram in grams(word, *self.gram_sizes) if (i := row(gram)) is not None]
        length = math.sqrt(sum([idf[i] * idf[i] for i in which])) or 1.0
        weights = np.array([self.unknown_idf / length * idf[i] for i in which], np.float32)
        # Selected by integers even where there are none.
        found: Array = weights.dot(self.gram_table_GF.take(np.array(which, np.int64), axis=0))
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything learned as numeric arrays, rows as they are rounded; see `rows_from_arrays`."""
        return {
            "words": _pack(self.words),
            "pairs": self.pairs,
            "grams": _pack(self.grams),
            **self._packed("table", self.table_VF),
            **self._packed("gram_table", self.gram_table_GF),
            "gram_idf": self.gram_idf,
            "unknown_idf": np.array([self.unknown_idf]),
        }

    def _packed(self, name: str, rows_VF: Array) -> dict[str, np.ndarray]:
        if self.is_half:
            return {name: rows_VF.astype(np.float16)}
        bytes_VF, scale_V = to_bytes(rows_VF)
        return {name: bytes_VF, f"{name}_scale": scale_V}

    def _rounded(self, rows_VF: Array) -> Array:
        if self.is_half:
            return rows_VF.astype(np.float16).astype(np.float32)
        return from_bytes(*to_bytes(rows_VF))


def rows_from_arrays(arrays: Mapping[str, np.ndarray], gram_sizes: tuple[int, int]) -> WordRows:
    """Rebuild from `WordRows.arrays`."""
    is_half = "table_scale" not in arrays

    def rows(name: str) -> Array:
        return arrays[name] if is_half else from_bytes(arrays[name], arrays[f"{name}_scale"])

    return WordRows(
        words=_unpack(arrays["words"]),
        pairs=arrays["pairs"],
        grams=_unpack(arrays["grams"]),
        table_VF=rows("table"),
        gram_table_GF=rows("gram_table"),
        is_half=is_half,
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
