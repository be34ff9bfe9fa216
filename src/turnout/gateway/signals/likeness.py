"""This module measures how near a text is to example prompts: by the words they share, or by an embedder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np

from turnout.core.contracts import Embedder, fitted
from turnout.core.errors import ConfigError, TurnoutError, sentence
from turnout.core.query import Query
from turnout.features import registry
from turnout.features.sparse import Array
from turnout.features.tokens import clip, split

_MAX_CHARS = 8_000
_ENDINGS = ("ing", "ed", "es", "s")
_SHORTEST_STEM = 4
_SINGLE = 0.25
_CLOSEST = 2


class Likeness(ABC):
    """Compares texts with examples."""

    @abstractmethod
    def near(self, texts: Sequence[str]) -> list[float]:
        """Return how near each text is to the examples, about 0 to 1."""

    @abstractmethod
    def among(self) -> list[float]:
        """Return how near each example is to the other ones."""


Vector = dict[str, float]


@final
class WordLikeness(Likeness):
    """Cosine of tf-idf vectors with the examples' centroid, on words without their endings.

    How rare a word is comes from the other texts, so that words which all prompts share weigh nothing, and a
    word that is in none of them weighs most, whether an example has it or not. A word of one example alone
    says little of what the examples have in common; it counts for a quarter.

    Parameters
    ----------
    examples:
        Prompts of one kind.
    others:
        Prompts that are not of it.
    """

    def __init__(self, *, examples: Sequence[str], others: Sequence[str]) -> None:
        self._counts = Counter(word for text in others for word in _words(text))
        self._num_others = len(others)
        self._examples = [self._vector(text) for text in examples]
        self._centre = _centre(self._examples)

    def near(self, texts: Sequence[str]) -> list[float]:
        """Return the products with the centroid."""
        return [_product(self._vector(text), self._centre) for text in texts]

    def among(self) -> list[float]:
        """Return each example's product with the centroid of the others."""
        return [
            _product(own, _centre(self._examples[:place] + self._examples[place + 1 :]))
            for place, own in enumerate(self._examples)
        ]

    def _vector(self, text: str) -> Vector:
        # Squared: a rare word then outweighs the small talk around it.
        rare = {word: self._rarity(word) ** 2 for word in _words(text)}
        length = math.sqrt(math.fsum(value * value for value in rare.values())) or 1.0
        return {word: value / length for word, value in rare.items()}

    def _rarity(self, word: str) -> float:
        return math.log((self._num_others + 1) / (self._counts[word] + 1))


def _words(text: str) -> set[str]:
    return {_stem(token) for token in split(clip(text, _MAX_CHARS)) if token[0].isalnum()}


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word.removesuffix(ending)
    return word


def _centre(vectors: Sequence[Vector]) -> Vector:
    counts = Counter(word for vector in vectors for word in vector)
    total: Vector = {}
    for vector in vectors:
        for word, value in vector.items():
            total[word] = total.get(word, 0.0) + value
    return {
        word: value / len(vectors) * (_SINGLE if counts[word] == 1 else 1.0) for word, value in total.items()
    }


def _product(left: Vector, right: Vector) -> float:
    return math.fsum(value * right.get(word, 0.0) for word, value in left.items())


@final
class EmbeddedLikeness(Likeness):
    """Mean cosine with the two closest examples, in the space of an embedder.

    Parameters
    ----------
    embedder:
        A fitted one.
    examples:
        Prompts of one kind.
    """

    def __init__(self, *, embedder: Embedder, examples: Sequence[str]) -> None:
        self._embedder = embedder
        self._example_EF = self._unit(examples)

    def near(self, texts: Sequence[str]) -> list[float]:
        """Return the cosines."""
        return _closest(self._unit(texts) @ self._example_EF.T)

    def among(self) -> list[float]:
        """Return the cosines of each example with the closest others."""
        cosine_EE = self._example_EF @ self._example_EF.T
        others_EE = cosine_EE[~np.eye(len(cosine_EE), dtype=bool)].reshape(len(cosine_EE), -1)
        return _closest(others_EE)

    def _unit(self, texts: Sequence[str]) -> Array:
        x_QF = self._embedder.embed(queries_of(texts))
        length_Q1 = np.linalg.norm(x_QF, axis=1, keepdims=True)
        unit_QF: Array = (x_QF / np.where(length_Q1 > 0, length_Q1, 1.0)).astype(np.float32)
        return unit_QF


def _closest(cosine_QE: Array) -> list[float]:
    near_QE = np.sort(cosine_QE, axis=1)[:, -_CLOSEST:]
    return [float(value) for value in near_QE.mean(axis=1)]


def queries_of(texts: Iterable[str]) -> list[Query]:
    """Return the texts as queries."""
    return [Query(id=str(place), text=text) for place, text in enumerate(texts)]


def embedder_of(
    name: str, options: dict[str, Any], *, where: str, texts: Sequence[str], others: str = ""
) -> Embedder:
    """Return a registered embedder, fitted to texts; raises `ConfigError` that names the section `where`.

    `others` are what else the setting may say, for the error.
    """
    try:
        made = registry.get(name)(**options)
        if not isinstance(made, Embedder):
            raise TypeError(f"{name} is no embedder")
        return fitted(made, queries_of(texts))
    except (TurnoutError, TypeError) as error:
        raise ConfigError(
            sentence(
                f"the section '{where}' has an embedder that cannot be made",
                allowed=f"{others}a registered embedder and arguments of its class",
                got=str(error),
                do="correct 'embedder' and 'options'",
            )
        ) from error
