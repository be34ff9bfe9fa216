"""This module finds the tags of a text, its telling words, and averages what candidates do under each tag."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from turnout.core.outcomes import Floats, Ints

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
