"""This module finds the tags of a text, its telling words, and says where a candidate met few of them.

A tag under which a candidate has far fewer rows than its share of all queries would bring speaks of queries
from which it was kept. Words of all tasks stand beside it, under which it has many: their rows say nothing of
this one. With tags taken as independent, how much less often than usual the candidate was observed on such
queries is the product of `(rows + prior) / (expected rows + prior)` (naive Bayes).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.evidence import ANYTHING, MOST

_WORD = re.compile(r"[^\W_]{3,}")


def words_of(text: str) -> list[str]:
    """Return the distinct words of at least three letters or digits, in small letters and in order."""
    return sorted(set(_WORD.findall(text.lower())))


def vocabulary(texts: Sequence[str], *, least: int, most_share: float, size: int) -> dict[str, int]:
    """Return a number for every word in at least `least` texts and at most a share of them, by frequency."""
    counts = Counter(word for text in texts for word in words_of(text))
    most = max(most_share * len(texts), least)
    kept = [word for word, count in counts.items() if least <= count <= most]
    kept = sorted(kept, key=lambda word: (-counts[word], word))[:size]
    return {word: number for number, word in enumerate(sorted(kept))}


def tags_of(texts: Sequence[str], number: Mapping[str, int]) -> tuple[Ints, Ints]:
    """Return pairs (row, tag), row by row."""
    found = [[number[word] for word in words_of(text) if word in number] for text in texts]
    row_P = np.repeat(np.arange(len(texts)), [len(tags) for tags in found])
    return row_P, np.array([tag for tags in found for tag in tags], np.int64)


def summed(place_P: Ints, value_PM: Floats, num: int) -> Floats:
    """Return the sums of values by place, shape (num, M)."""
    sum_NM = np.zeros((num, value_PM.shape[1]))
    np.add.at(sum_NM, place_P, value_PM)
    return sum_NM


def shares_of(tag_P: Ints, num_tags: int, num_rows: int) -> Floats:
    """Return the share of the training queries under each tag, shape (T,)."""
    share_T: Floats = np.bincount(tag_P, minlength=num_tags) / max(num_rows, 1)
    return share_T


def widened(
    square_QM: Floats,
    pairs: tuple[Ints, Ints],
    rows_TM: Floats,
    share_T: Floats,
    total_M: Floats,
    prior: float,
) -> Floats:
    """Return the spread from its square, wide where a candidate was kept from queries of such tags.

    `pairs` are the rows and tags of the queries; `rows_TM` and `total_M` count observed outcomes under each
    tag and in all, and `share_T` says how much of all queries each tag has. A query without a tag is any.
    """
    row_P, tag_P = pairs
    log_TM = np.log((rows_TM + prior) / (share_T[:, None] * total_M + prior))
    log_QM = summed(row_P, log_TM[tag_P], len(square_QM))
    lack_QM = (1.0 - np.exp(np.minimum(log_QM, 0.0))) ** 2
    if share_T.any():
        lack_TM = (1.0 - np.exp(np.minimum(log_TM, 0.0))) ** 2
        has_none_Q = np.bincount(row_P, minlength=len(square_QM)) == 0
        lack_QM[has_none_Q] = np.average(lack_TM, axis=0, weights=share_T)
    most_M = np.where(total_M > 0, MOST, np.inf)
    wide_QM: Floats = np.minimum(np.sqrt(square_QM + ANYTHING * lack_QM), most_M)
    return wide_QM
