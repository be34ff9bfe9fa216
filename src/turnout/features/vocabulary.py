"""This module counts tokens in a corpus and keeps the ones worth a row: words, pairs, character n-grams.

Everything is counted on the distinct words of the corpus, so that character n-grams cost nothing per
document: the document frequency of an n-gram is taken as the sum over the words that hold it (an upper
bound, cut at the number of documents). Equal counts are ordered by the token itself, so that the order
of documents never matters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from turnout.features.tokens import grams

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Corpus:
    """D documents as runs of indices into their distinct words."""

    words: list[str]
    """Distinct words, sorted."""
    token: Ints
    """All tokens, document after document, as indices into `words`."""
    start: Ints
    """Shape (D + 1,): document d is `token[start[d]:start[d + 1]]`."""

    @property
    def document(self) -> Ints:
        """The document of each token."""
        return np.repeat(np.arange(self.start.size - 1), np.diff(self.start))


def read_corpus(documents: Sequence[Sequence[str]]) -> Corpus:
    """Number the words of tokenised documents."""
    # A missing word takes the next number, inside the dictionary: a corpus has millions of tokens.
    first: defaultdict[str, int] = defaultdict(count().__next__)
    token = [first[word] for document in documents for word in document]
    order = sorted(first)
    renumber = np.empty(len(order), np.int64)
    renumber[[first[word] for word in order]] = np.arange(len(order))
    start = np.cumsum([0, *(len(document) for document in documents)]).astype(np.int64)
    return Corpus(order, renumber[np.array(token, np.int64)], start)


def count_cells(document: Ints, feature: Ints, num_features: int) -> tuple[Ints, Ints, Ints]:
    """Return the distinct (document, feature) cells, sorted by document, and how often each stands."""
    cell, count = np.unique(document * num_features + feature, return_counts=True)
    return cell // max(num_features, 1), cell % max(num_features, 1), count


def most_frequent(frequency: Ints, num: int, low: int) -> Ints:
    """Return the indices of at most `num` features of frequency `low` or more, in ascending order."""
    known = np.flatnonzero(frequency >= low)
    best = known[np.argsort(-frequency[known], kind="stable")[:num]]
    return np.sort(best)


def pair_tokens(corpus: Corpus, rank: Ints, num_words: int) -> tuple[Ints, Ints]:
    """Return (document, key) of neighbouring tokens of one document that both have a `rank` (not -1).

    A pair's key is `rank(first) * (num_words + 1) + rank(second) + 1`, see `pair_keys`.
    """
    if corpus.token.size < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ranked, document = rank[corpus.token], corpus.document
    left, right = ranked[:-1], ranked[1:]
    is_pair = (left >= 0) & (right >= 0) & (document[:-1] == document[1:])
    return document[:-1][is_pair], left[is_pair] * (num_words + 1) + right[is_pair] + 1


def pair_keys(ranks: Ints, num_words: int) -> Ints:
    """Return the keys of neighbouring tokens; with an unknown word (-1) a key that no pair has."""
    keys = ranks[:-1] * (num_words + 1)
    keys += ranks[1:]
    keys += 1
    return keys


def count_grams(
    words: Sequence[str], frequency: Ints, low: int, high: int, num_documents: int
) -> tuple[list[str], Ints]:
    """Return the character n-grams of all words, sorted, and their document frequencies (see above)."""
    total: dict[str, int] = {}
    for word, times in zip(words, frequency.tolist(), strict=True):
        for gram in set(grams(word, low, high)):
            total[gram] = total.get(gram, 0) + times
    order = sorted(total)
    return order, np.minimum(np.array([total[gram] for gram in order], np.int64), num_documents)


def inverse_frequency(frequency: Ints, num_documents: int) -> Floats:
    """Return `log((1 + D) / (1 + df)) + 1`: the smooth idf, 1 for a token that stands everywhere."""
    idf: Floats = np.log((1.0 + num_documents) / (1.0 + frequency)) + 1.0
    return idf
