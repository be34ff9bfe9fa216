"""This module keeps answers and finds the one that fits a request: the same text, or one that is near (S23).

Everything about two requests must be the same but their last user message, so requests lie in buckets and
only messages of one bucket are compared. A vector blurs what a number says: `2+2` is near to `2+3` in any
space. Two messages whose numbers differ, or stand in another order, are therefore never the same.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from turnout.core.clock import Clock
from turnout.core.contracts import Embedder
from turnout.core.query import Query
from turnout.gateway.settings_cache import CacheSettings
from turnout.gateway.signals.background import UNRELATED
from turnout.gateway.signals.likeness import embedder_of

DEFAULT_EMBEDDER = "text"
"""Fast enough for the event loop; others are asked in a thread."""

Vector = npt.NDArray[np.float32]

_NUMBER = re.compile(r"\d+")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a request is known by in a cache."""

    bucket: bytes
    """Digest of everything but the last user message."""
    text: str
    """That message."""
    is_comparable: bool
    """Whether a near message would do: a tool's result, say, must be the same."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One answer as it was sent."""

    content_type: bytes
    body: bytes
    is_stream: bool
    served: str
    """The candidate that gave it."""
    born_s: float
    """When, in seconds since the epoch."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """An answer that fits a request."""

    kept: Kept
    similarity: float
    """Of the two last user messages; 1 for the same text."""
    age_s: float


@final
class _Nearby:
    """The messages of one bucket that can be compared, a row of a matrix each; the last fills a gap."""

    def __init__(self, num_features: int) -> None:
        self.texts: list[str] = []
        self._rows: dict[str, int] = {}
        self._unit_NF = np.zeros((4, num_features), dtype=np.float32)

    def add(self, text: str, unit_F: Vector) -> None:
        if len(self.texts) == len(self._unit_NF):
            self._unit_NF = np.concatenate([self._unit_NF, np.zeros_like(self._unit_NF)])
        self._unit_NF[len(self.texts)] = unit_F
        self._rows[text] = len(self.texts)
        self.texts.append(text)

    def drop(self, text: str) -> None:
        row = self._rows.pop(text, None)
        if row is None:
            return
        last = self.texts.pop()
        if last != text:
            self.texts[row], self._rows[last] = last, row
            self._unit_NF[row] = self._unit_NF[len(self.texts)]

    def cosines(self, unit_F: Vector) -> Vector:
        cosine_N: Vector = self._unit_NF[: len(self.texts)] @ unit_F
        return cosine_N


@final
class AnswerCache:
    """The answers of one rule, in this process.

    Parameters
    ----------
    settings:
        How long, how many, how near. Raises `ConfigError` for an embedder that cannot be made.
    clock:
        What time it is.
    where:
        The section, for errors.
    """

    def __init__(self, *, settings: CacheSettings, clock: Clock, where: str) -> None:
        self.settings = settings
        self.clock = clock
        self._entries: OrderedDict[tuple[bytes, str], Kept] = OrderedDict()
        self._buckets: dict[bytes, _Nearby] = {}
        self._num_bytes = 0
        self._embedder: Embedder | None = None
        if settings.similarity is not None:
            self._embedder = embedder_of(settings.embedder, settings.options, where=where, texts=UNRELATED)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_slow(self) -> bool:
        """Whether a message is read by an embedder that may take its time."""
        return self._embedder is not None and self.settings.embedder != DEFAULT_EMBEDDER

    def exact(self, asked: Asked) -> Hit | None:
        """Return the answer to the same text, or None."""
        return self._hit((asked.bucket, asked.text), 1.0)

    def vector(self, asked: Asked) -> Vector | None:
        """Return a message's vector of length 1, shape (F,); None where near messages do not count."""
        if self._embedder is None or not asked.is_comparable:
            return None
        x_F: Vector = self._embedder.embed([Query(id="cache", text=asked.text)])[0].astype(np.float32)
        length = float(np.linalg.norm(x_F))
        return x_F / np.float32(length) if length > 0 and np.isfinite(length) else None

    def near(self, asked: Asked, unit_F: Vector) -> Hit | None:
        """Return the answer to the nearest message that is near enough and has the same numbers, or None."""
        bucket, least = self._buckets.get(asked.bucket), self.settings.similarity
        if bucket is None or least is None:
            return None
        cosine_N = bucket.cosines(unit_F)
        numbers = _NUMBER.findall(asked.text)
        for row in np.argsort(-cosine_N, kind="stable").tolist():
            if cosine_N[row] < least:
                return None
            if _NUMBER.findall(bucket.texts[row]) == numbers:
                return self._hit((asked.bucket, bucket.texts[row]), min(1.0, float(cosine_N[row])))
        return None

    def keep(self, asked: Asked, unit_F: Vector | None, kept: Kept) -> None:
        """Keep an answer, in the place of an older one to the same text."""
        limit = self.settings.max_mb * 1e6
        if _size(asked.text, kept) > limit:
            return
        key = (asked.bucket, asked.text)
        self._forget(key)
        self._entries[key] = kept
        self._num_bytes += _size(asked.text, kept)
        if unit_F is not None:
            self._buckets.setdefault(asked.bucket, _Nearby(len(unit_F))).add(asked.text, unit_F)
        while len(self._entries) > self.settings.max_entries or self._num_bytes > limit:
            self._forget(next(iter(self._entries)))

    def forget(self, asked: Asked) -> None:
        """Forget the answer to a text, if there is one."""
        self._forget((asked.bucket, asked.text))

    def carry_over(self, before: AnswerCache) -> None:
        """Take over what was kept under an earlier configuration."""
        self._entries, self._buckets = before._entries, before._buckets
        self._num_bytes = before._num_bytes

    def _hit(self, key: tuple[bytes, str], similarity: float) -> Hit | None:
        kept = self._entries.get(key)
        if kept is None:
            return None
        age_s = self.clock.now_s() - kept.born_s
        if age_s >= self.settings.ttl_s:
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return Hit(kept=kept, similarity=similarity, age_s=max(0.0, age_s))

    def _forget(self, key: tuple[bytes, str]) -> None:
        kept = self._entries.pop(key, None)
        if kept is None:
            return
        self._num_bytes -= _size(key[1], kept)
        bucket = self._buckets.get(key[0])
        if bucket is not None:
            bucket.drop(key[1])
            if not bucket.texts:
                del self._buckets[key[0]]


def _size(text: str, kept: Kept) -> int:
    return len(kept.body) + len(text)
