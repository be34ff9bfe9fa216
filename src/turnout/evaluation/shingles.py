"""This module turns texts into what can be compared: a normal form, and sets of three-token shingles.

A normal form makes texts equal that differ in case, white space or Unicode form only. Shingles are runs of
three tokens (A. Broder, "On the resemblance and containment of documents", 1997); every CJK character and
every operator is a token, other punctuation is not. Shingles that occur in many distinct texts are the
template of a benchmark, not the question, and are left out.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from turnout.core.outcomes import Ints

WIDTH = 3
"""Tokens in a shingle."""
MIN_TEMPLATE = 20
"""A shingle is never template in fewer distinct texts than this."""
TEMPLATE_SHARE = 0.01
"""Share of the distinct texts from which on a shingle is template."""
MAX_CHARACTERS = 20_000
"""Longer texts are compared by their first and last halves of this; a 1 MB prompt costs no more."""

HASH_BITS = 40
"""A million distinct shingles share a hash about once; the other 24 bits number the text."""

_HASH_MASK = np.uint64(2**HASH_BITS - 1)
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[-+*/<>=%^]")
_SPACE = re.compile(r"\s+")


@final
@dataclass(frozen=True, kw_only=True)
class ShingleSets:
    """One set of shingles per text, one after the other."""

    shingle_N: Ints
    """Numbers of shingles, rising within each text."""
    text_N: Ints
    """Which text each belongs to, rising."""
    size_T: Ints
    """Shingles of each text, shape (T,); 0 where only template is left."""


def normal_form(text: str) -> str:
    """Return the text without differences of case, white space and Unicode form."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def shingle_sets(texts: Sequence[str]) -> ShingleSets:
    """Return the shingles of normal forms that differ from each other, template left out."""
    numbers: dict[str, int] = {}
    runs = [_token_numbers(text, numbers) for text in texts]
    length_T = np.array([run.size for run in runs], dtype=np.int64)
    if not length_T.sum():
        return ShingleSets(shingle_N=np.empty(0, np.int64), text_N=np.empty(0, np.int64), size_T=length_T)
    tokens_N = np.concatenate(runs)
    text_N = np.repeat(np.arange(len(texts)), length_T)
    hash_N = _roll(tokens_N)
    # A run that would cross into the next text is dropped, but every text of fewer tokens keeps one.
    left_N = np.repeat(np.cumsum(length_T), length_T) - np.arange(tokens_N.size)
    keep_N = left_N >= np.minimum(WIDTH, length_T[text_N])
    # Text and hash in one number, so that one sort finds what repeats within a text.
    pair_N = np.unique(text_N[keep_N].astype(np.uint64) << np.uint64(HASH_BITS) | hash_N[keep_N])
    text_N = (pair_N >> np.uint64(HASH_BITS)).astype(np.int64)
    _, shingle_N, count = np.unique(pair_N & _HASH_MASK, return_inverse=True, return_counts=True)
    own_N = count[shingle_N] <= max(MIN_TEMPLATE, TEMPLATE_SHARE * len(texts))
    text_N, shingle_N = text_N[own_N], shingle_N[own_N]
    return ShingleSets(
        shingle_N=shingle_N, text_N=text_N, size_T=np.bincount(text_N, minlength=len(texts)).astype(np.int64)
    )


def _token_numbers(text: str, numbers: dict[str, int]) -> Ints:
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]} {text[-half:]}"
    found = [numbers.setdefault(token, len(numbers) + 1) for token in _TOKEN.findall(text)]
    if 0 < len(found) < WIDTH:
        found += [0] * (WIDTH - len(found))
    return np.array(found, dtype=np.int64)


def _roll(tokens_N: Ints) -> npt.NDArray[np.uint64]:
    """Hash every token with the next ones: odd multipliers, then a finalizer that mixes all bits."""
    tokens = tokens_N.astype(np.uint64)
    mixed = tokens * np.uint64(0x9E3779B97F4A7C15)
    for ahead in range(1, WIDTH):
        following = np.concatenate([tokens[ahead:], np.zeros(ahead, np.uint64)])[: tokens.size]
        mixed = mixed * np.uint64(0xC2B2AE3D27D4EB4F) + following
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return mixed & _HASH_MASK
