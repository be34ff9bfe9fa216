"""This module finds texts that are the same or nearly the same, and groups them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.validation import check_number
from turnout.evaluation.minhash import similar_pairs
from turnout.evaluation.shingles import normal_form, shingle_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from turnout.core.outcomes import Ints

THRESHOLD = 0.8
"""Jaccard similarity of shingles from which on two texts are nearly the same."""


@final
@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What repeats in a list of Q texts."""

    exact_Q: Ints
    """Number of the normal form, shape (Q,): equal numbers, equal texts. Negative for unreadable ones."""
    first_N: Ints
    second_N: Ints
    """Pairs of numbers of nearly equal normal forms, shape (N,) each."""


def find_duplicates(
    texts: Sequence[str | None], *, threshold: float = THRESHOLD, seed: int = 0
) -> Duplicates:
    """Return equal and nearly equal texts; a text that is None or blank repeats nothing."""
    check_number("near_duplicates: threshold", threshold, low=0.0, high=1.0, allow_low=False)
    numbers: dict[str, int] = {}
    exact_Q = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        form = normal_form(text) if text is not None else ""
        exact_Q[row] = numbers.setdefault(form, len(numbers)) if form else -1 - row
    first_N, second_N, _ = similar_pairs(shingle_sets(list(numbers)), threshold=threshold, seed=seed)
    return Duplicates(exact_Q=exact_Q, first_N=first_N, second_N=second_N)


def near_duplicates(texts: Sequence[str | None], *, threshold: float = THRESHOLD, seed: int = 0) -> Ints:
    """Return a group number per text, shape (Q,): same and nearly same texts share one.

    Groups are chains: if A is near B and B is near C, all three are one group. Numbers count up in order
    of first appearance. Cost: about two seconds per 10,000 prompts of 100 tokens.

    Example
    -------
    >>> near_duplicates(["How far is the moon?", "how far  is the moon?", "Who wrote Faust?"]).tolist()
    [0, 0, 1]
    """
    found = find_duplicates(texts, threshold=threshold, seed=seed)
    parent = list(range(int(found.exact_Q.max(initial=-1)) + 1))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in zip(found.first_N.tolist(), found.second_N.tolist(), strict=True):
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    labels = [root(number) if number >= 0 else number for number in found.exact_Q.tolist()]
    order: dict[int, int] = {}
    return np.array([order.setdefault(label, len(order)) for label in labels], dtype=np.int64)
