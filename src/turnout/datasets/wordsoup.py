"""This module writes nonsense text whose words tell its topic and its difficulty, in several scripts.

Every topic has words of its own, hard queries use rare words more often, and the rest is common to all: a
text encoder can learn topic and difficulty from the words, and nothing else is in them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from turnout.core.rng import make_rng

# First and last code point of the letters: Latin, Cyrillic, Greek, Devanagari, Han, Hangul, Arabic.
_SCRIPTS = (
    (0x61, 0x7A),
    (0x430, 0x44F),
    (0x3B1, 0x3C9),
    (0x915, 0x939),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0x628, 0x63A),
)
_WORDS_PER_TOPIC = 40
_WORDS_IN_COMMON = 120
_HARD_WORDS = 30

TOPIC_SHARE = 0.5
"""Share of a text's words that come from its topic."""
HARD_SHARE = 0.4
"""Share of a text's words that are hard ones at difficulty 1; at difficulty 0 there are none."""


def write_texts(
    topic_Q: npt.NDArray[np.int64],
    difficulty_Q: npt.NDArray[np.float64],
    *,
    num_topics: int,
    mean_words: int,
    seed: int,
) -> list[str]:
    """Write one text per query, of `mean_words` words give or take a half."""
    vocabulary = np.array(_vocabulary(num_topics, seed), dtype=object)
    rng = make_rng(seed, "wordsoup", "texts")
    low, high = max(1, mean_words // 2), max(1, mean_words + mean_words // 2)
    length_Q = rng.integers(low, high, size=topic_Q.size, endpoint=True)
    owner = np.repeat(np.arange(topic_Q.size), length_Q)
    kind = rng.random(owner.size)
    is_topic = kind < TOPIC_SHARE
    is_hard = ~is_topic & (kind < TOPIC_SHARE + HARD_SHARE * difficulty_Q[owner])
    word = rng.integers(0, _WORDS_IN_COMMON, size=owner.size)
    word[is_hard] = _WORDS_IN_COMMON + rng.integers(0, _HARD_WORDS, size=int(is_hard.sum()))
    first = _WORDS_IN_COMMON + _HARD_WORDS + topic_Q[owner[is_topic]] * _WORDS_PER_TOPIC
    word[is_topic] = first + rng.integers(0, _WORDS_PER_TOPIC, size=int(is_topic.sum()))
    words: list[str] = vocabulary[word].tolist()
    ends = np.cumsum(length_Q).tolist()
    return [" ".join(words[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _vocabulary(num_topics: int, seed: int) -> list[str]:
    rng = make_rng(seed, "wordsoup", "vocabulary")
    words = _make_words(_WORDS_IN_COMMON + _HARD_WORDS, _SCRIPTS[0], rng)
    for topic in range(num_topics):
        words += _make_words(_WORDS_PER_TOPIC, _SCRIPTS[topic % len(_SCRIPTS)], rng)
    return words


def _make_words(count: int, letters: tuple[int, int], rng: np.random.Generator) -> list[str]:
    lengths = rng.integers(3, 8, size=count, endpoint=True)
    return ["".join(map(chr, rng.integers(*letters, size=n, endpoint=True))) for n in lengths]
