"""This module measures a request without learning words: length, code, digits, script, turns, needs."""

from __future__ import annotations

import math
import operator
import re
import threading
from collections.abc import Sequence
from typing import NamedTuple, Self, final

import numpy as np
import numpy.typing as npt

from turnout.core.candidate import CAPABILITIES
from turnout.core.contracts import Embedder, State
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.features.languages import SCRIPTS
from turnout.features.sparse import Array
from turnout.features.tokens import clip

CODE = re.compile(
    r"```|\b(?:def|class|return|import|function|const|void|public|elif|lambda|SELECT|FROM|WHERE)\b"
    r"|[{};]\s*$|==|!=|->|=>|::|\(\)|#include",
    re.MULTILINE,
)
"""Marks of program text."""
# The commonest short words; a share of tokens, so that close languages blend instead of flipping.
_LANGUAGES = {
    "english": "the of and to in is that it for with are what how",
    "spanish": "el la de que y en los las es una por con para",
    "french": "le la les de des et est une que dans pour qui pas",
    "german": "der die das und ist nicht ein eine mit von auf den",
    "portuguese": "o a de que e do da em um uma para com os",
    "italian": "il la di che e un una per non sono con del gli",
}
_WORD = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")
_SIGN = re.compile(r"[^\w\s]")
_MATH = re.compile(r"[=+*/^<>\\$]|\u2211|\u222b|\u221a")
_UPPER = re.compile("[A-Z]")
_NEEDS = tuple(sorted(CAPABILITIES))

NAMES = (
    "log_chars",
    "log_words",
    "log_lines",
    "log_turns",
    "log_input_tokens",
    "word_length",
    "code_share",
    "digit_share",
    "sign_share",
    "math_share",
    "upper_share",
    "question_marks",
    *(f"script_{name}" for name in SCRIPTS),
    *(f"language_{name}" for name in _LANGUAGES),
    *(f"needs_{name}" for name in _NEEDS),
)
"""What each column measures before it is standardised; shares are of characters, or of words."""


@final
class SignalsEmbedder(Embedder):
    """Measure a request: length, code, digits, script and language, turns, needs; standardised in `fit`.

    Parameters
    ----------
    max_chars:
        At most so many characters are read for the shares, half from each end; lengths are exact.
    limit:
        A standardised value is cut at so many deviations, so that one odd prompt cannot dominate.

    Shapes
    ------
    Output float32 of shape (Q, F) with F = `len(NAMES)`, divided by sqrt(F): its length is about 1, so
    that it can stand beside text. A column that is constant on the training texts stays 0.

    Cost
    ----
    O(characters) per query.
    """

    def __init__(self, *, max_chars: int = 2_000, limit: float = 4.0) -> None:
        self.max_chars = check_count("SignalsEmbedder.max_chars", max_chars)
        self.limit = check_number("SignalsEmbedder.limit", limit, low=0.0, allow_low=False)
        self.centre_F_: Array | None = None
        self.scale_F_: Array | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether means and deviations were learned."""
        return self.centre_F_ is not None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn mean and deviation of every column; returns self."""
        raw_QF = measure(queries, self.max_chars)
        if not len(raw_QF):
            raw_QF = np.zeros((1, len(NAMES)))
        deviation_F = raw_QF.std(axis=0)
        is_constant = deviation_F < 1e-9
        self.centre_F_ = raw_QF.mean(axis=0).astype(np.float32)
        self.scale_F_ = np.where(is_constant, 0.0, 1.0 / np.where(is_constant, 1.0, deviation_F)).astype(
            np.float32
        )
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the standardised measures, float32 of shape (Q, F)."""
        self.require_fitted("embed")
        assert self.centre_F_ is not None
        assert self.scale_F_ is not None
        standard_QF = (measure(queries, self.max_chars) - self.centre_F_) * self.scale_F_
        cut_QF = np.clip(standard_QF, -self.limit, self.limit) / math.sqrt(len(NAMES))
        return cut_QF.astype(np.float32)

    def state(self) -> State:
        """Return means and deviations."""
        self.require_fitted("state")
        assert self.centre_F_ is not None
        assert self.scale_F_ is not None
        return State(arrays={"centre": self.centre_F_, "scale": self.scale_F_})

    def restore(self, state: State) -> None:
        """Take over means and deviations."""
        self.centre_F_, self.scale_F_ = state.arrays["centre"], state.arrays["scale"]


_KEPT_AT_MOST = 64
"""Queries of a call that is kept; more are no request."""
_last = threading.local()


def measure(queries: Sequence[Query], max_chars: int) -> npt.NDArray[np.float64]:
    """Return the raw measures of `NAMES`, shape (Q, F).

    What a thread measured last is kept: routers that read signals side by side measure a request once.
    """
    kept: _Kept | None = getattr(_last, "kept", None)
    if kept is not None and kept.is_of(queries, max_chars):
        return kept.raw_QF
    rows = [_measure_one(query, clip(query.words, max_chars)) for query in queries]
    raw_QF = np.array(rows, np.float64).reshape(len(rows), len(NAMES))
    raw_QF.flags.writeable = False
    if len(queries) <= _KEPT_AT_MOST:
        _last.kept = _Kept(tuple(queries), max_chars, raw_QF)
    return raw_QF


class _Kept(NamedTuple):
    queries: tuple[Query, ...]
    max_chars: int
    raw_QF: npt.NDArray[np.float64]

    def is_of(self, queries: Sequence[Query], max_chars: int) -> bool:
        """Return whether these are the same objects; a query never changes."""
        same_number = max_chars == self.max_chars and len(queries) == len(self.queries)
        return same_number and all(map(operator.is_, queries, self.queries))


def _measure_one(query: Query, text: str) -> list[float]:
    whole = query.words
    words = _WORD.findall(text.lower()) if text.isascii() else [w.lower() for w in _WORD.findall(text)]
    num_chars, num_words = max(len(text), 1), max(len(words), 1)
    # An unknown number of tokens is guessed at four characters each, so that it is not an outlier.
    tokens = len(whole) / 4 if query.input_tokens is None else query.input_tokens
    scale_up = len(whole) / num_chars
    return [
        math.log1p(len(whole)),
        math.log1p(len(words) * scale_up),
        math.log1p(whole.count("\n")),
        math.log1p(query.num_turns),
        math.log1p(tokens),
        sum(map(len, words)) / num_words,
        len(CODE.findall(text)) / num_words,
        *(count / num_chars for count in _kinds(text)),
        math.log1p(text.count("?") + text.count("\uff1f")),
        *(count / num_chars for count in _scripts(text)),
        *(count / num_words for count in _common(words)),
        *(float(need in query.needs) for need in _NEEDS),
    ]


def _kinds(text: str) -> list[int]:
    """Return the numbers of digits, signs, characters of formulas and capitals."""
    if text.isascii():
        return [_count(text, of) for of in _ASCII_KINDS]
    found = [len(pattern.findall(text)) for pattern in (_DIGIT, _SIGN, _MATH)]
    return [*found, sum(map(str.isupper, text))]


def _scripts(text: str) -> list[int]:
    """Return the number of characters of each script."""
    if text.isascii():
        return [_count(text, of) if of else 0 for of in _ASCII_SCRIPTS]
    return [len(pattern.findall(text)) for pattern in SCRIPTS.values()]


def _common(words: Sequence[str]) -> list[int]:
    """Return the number of words that are common in each language."""
    found = [0] * len(_LANGUAGES)
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            found[language] += 1
    return found


def _count(text: str, characters: bytes) -> int:
    """Return how many characters of an ASCII text are among these: many times as fast as a pattern."""
    return len(text) - len(text.encode().translate(None, characters))


def _ascii_of(pattern: re.Pattern[str]) -> bytes:
    """Return the ASCII characters that a pattern of one character takes."""
    return bytes(code for code in range(128) if pattern.fullmatch(chr(code)))


_ASCII_KINDS = tuple(map(_ascii_of, (_DIGIT, _SIGN, _MATH, _UPPER)))
_ASCII_SCRIPTS = tuple(map(_ascii_of, SCRIPTS.values()))
_COMMON = tuple(frozenset(words.split()) for words in _LANGUAGES.values())
_LANGUAGES_OF = {
    word: tuple(number for number, words in enumerate(_COMMON) if word in words)
    for word in frozenset().union(*_COMMON)
}
