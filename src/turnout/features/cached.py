"""This module remembers the vectors of texts that were seen lately."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count
from turnout.features.sparse import Array

_Key = tuple[str | None, str | None, int, int | None, frozenset[str], frozenset[tuple[str, str]]]
_NO_TAGS: frozenset[tuple[str, str]] = frozenset()


@final
class CachedEmbedder(Embedder):
    """Keep the vectors of the last requests, the least recently used dropped first.

    Worth its memory around a slow embedder (a sentence encoder, an API), not around `TextEmbedder`. Safe
    to use from several threads. A request is the same if everything but its id is.

    Parameters
    ----------
    embedder:
        The one whose vectors are kept; a fitted one is shared as it is.
    max_entries:
        Vectors kept, at least 1; memory is `max_entries * F * 4` bytes and the texts.
    """

    def __init__(self, *, embedder: Embedder, max_entries: int = 10_000) -> None:
        if not isinstance(embedder, Embedder):
            raise InputError(sentence("CachedEmbedder.embedder", allowed="an embedder", got=embedder))
        self.embedder = embedder
        self.max_entries = check_count("CachedEmbedder.max_entries", max_entries)
        self.embedder_: Embedder | None = embedder if embedder.is_fitted else None
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Array] = OrderedDict()

    @property
    def is_fitted(self) -> bool:
        """Whether the embedder inside is."""
        return self.embedder_ is not None

    @property
    def num_entries(self) -> int:
        """Vectors that are kept now."""
        return len(self._kept)

    def fit(self, queries: Sequence[Query]) -> Self:
        """Fit the embedder inside if it is not fitted, and forget all vectors; returns self."""
        self.embedder_ = fitted(self.embedder, queries)
        with self._lock:
            self._kept.clear()
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the vectors, float32 of shape (Q, F); only unknown requests reach the embedder inside."""
        self.require_fitted("embed")
        assert self.embedder_ is not None
        keys = [_key(query) for query in queries]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in found}
        if missing or not keys:
            fresh_QF = np.asarray(self.embedder_.embed(list(missing.values())), np.float32)
            if not keys:
                return fresh_QF
            # A row is copied, so that it does not keep its whole batch alive.
            new = {key: row.copy() for key, row in zip(missing, fresh_QF, strict=True)}
            found.update(new)
            self._keep(new)
        return np.stack([found[key] for key in keys])

    def state(self) -> State:
        """Return the embedder inside, without the vectors."""
        self.require_fitted("state")
        assert self.embedder_ is not None
        return State(parts={} if self.embedder_ is self.embedder else {"embedder": self.embedder_})

    def restore(self, state: State) -> None:
        """Take over the embedder inside."""
        part = state.parts.get("embedder", self.embedder)
        assert isinstance(part, Embedder)
        self.embedder_ = part

    def _keep(self, new: dict[_Key, Array]) -> None:
        with self._lock:
            self._kept.update(new)
            while len(self._kept) > self.max_entries:
                self._kept.popitem(last=False)


def _key(query: Query) -> _Key:
    tags = frozenset(query.tags.items()) if query.tags else _NO_TAGS
    return query.text, query.task, query.num_turns, query.input_tokens, query.needs, tags
