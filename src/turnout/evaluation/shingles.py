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

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[-+*/<>=%^]")
_SPACE = re.compile(r"\s+")


@final
@dataclass(frozen=True, kw_only=True)
class ShingleSets:
    """One set of shingles per text, one after the other."""

    shingle_N: npt.NDArray[np.uint64]
    """Hashes, sorted within each text."""
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
        return ShingleSets(shingle_N=np.empty(0, np.uint64), text_N=np.empty(0, np.int64), size_T=length_T)
    tokens_N = np.concatenate(runs)
    text_N = np.repeat(np.arange(len(texts)), length_T)
    hash_N = _roll(tokens_N)
    # A run that would cross into the next text is dropped, but every text of fewer tokens keeps one.
    left_N = np.repeat(np.cumsum(length_T), length_T) - np.arange(tokens_N.size)
    keep_N = left_N >= np.minimum(WIDTH, length_T[text_N])
    text_N, hash_N = _unique_pairs(text_N[keep_N], hash_N[keep_N])
    keep_N = ~_is_template(hash_N, len(texts))
    text_N, hash_N = text_N[keep_N], hash_N[keep_N]
    return ShingleSets(
        shingle_N=hash_N, text_N=text_N, size_T=np.bincount(text_N, minlength=len(texts)).astype(np.int64)
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
    return mixed


def _unique_pairs(text_N: Ints, hash_N: npt.NDArray[np.uint64]) -> tuple[Ints, npt.NDArray[np.uint64]]:
    order = np.lexsort((hash_N, text_N))
    text_N, hash_N = text_N[order], hash_N[order]
    first_N = np.ones(text_N.size, dtype=np.bool_)
    first_N[1:] = (np.diff(text_N) != 0) | (hash_N[1:] != hash_N[:-1])
    return text_N[first_N], hash_N[first_N]


def _is_template(hash_N: npt.NDArray[np.uint64], num_texts: int) -> npt.NDArray[np.bool_]:
    _, inverse_N, count = np.unique(hash_N, return_inverse=True, return_counts=True)
    limit = max(MIN_TEMPLATE, TEMPLATE_SHARE * num_texts)
    many_N: npt.NDArray[np.bool_] = count[inverse_N] > limit
    return many_N
