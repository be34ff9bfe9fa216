"""This module fits an embedder once for many routers and folds: it learns from texts, never from outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from turnout.core.contracts import Embedder, Router
from turnout.core.query import Query
from turnout.features import CachedEmbedder, TextEmbedder


def share_embedders(routers: Mapping[str, Router], queries: Sequence[Query]) -> dict[str, Router]:
    """Return the routers with every unfitted embedder of theirs fitted on `queries`.

    Equal settings share one embedder. Routers that read no text, and embedders that are fitted already,
    come back as they are.
    """
    known: dict[str, Embedder] = {}

    def fit(embedder: Embedder) -> Embedder:
        if embedder.is_fitted:
            return embedder
        key = repr(embedder)
        if key not in known:
            known[key] = embedder.clone().fit(queries)
        return known[key]

    return {name: _with_embedder(router, fit) for name, router in routers.items()}


def remember_vectors(routers: Mapping[str, Router], num_queries: int) -> dict[str, Router]:
    """Return the routers with their fitted embedders behind one memory of the last `num_queries` texts.

    Pays where the same queries are embedded again and again, as in cross-validation.
    """
    known: dict[int, Embedder] = {}

    def wrap(embedder: Embedder) -> Embedder:
        if not embedder.is_fitted or isinstance(embedder, CachedEmbedder):
            return embedder
        memory = CachedEmbedder(embedder=embedder, max_entries=max(num_queries, 1))
        return known.setdefault(id(embedder), memory)

    return {name: _with_embedder(router, wrap) for name, router in routers.items()}


def _with_embedder(router: Router, change: Callable[[Embedder], Embedder]) -> Router:
    config = router.config()
    if "embedder" not in config:
        return router
    given = config["embedder"]
    embedder = TextEmbedder() if given is None else given
    if not isinstance(embedder, Embedder):
        return router
    return type(router)(**{**config, "embedder": change(embedder)})
