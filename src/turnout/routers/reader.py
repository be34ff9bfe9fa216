"""This module holds the embedder of a router: given or default, shared or its own, saved once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnout.core.contracts import Configured, Embedder, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.features.text import TextEmbedder


def fitted_embedder(embedder: Embedder | None, queries: Sequence[Query]) -> Embedder:
    """Return the given embedder if it is fitted, else a copy fitted on the queries; None means text."""
    return fitted(TextEmbedder() if embedder is None else embedder, queries)


def embedder_parts(given: Embedder | None, used: Embedder) -> dict[str, Configured]:
    """Return what a router must save beside its settings: nothing where the settings hold it fitted."""
    return {} if used is given else {"embedder": used}


def restored_embedder(given: Embedder | None, parts: Mapping[str, Configured]) -> Embedder:
    """Return the embedder that `embedder_parts` saved, or the one of the settings."""
    embedder = parts.get("embedder", given)
    if not isinstance(embedder, Embedder):
        raise InputError(sentence("the state of a router", allowed="a fitted embedder", got=type(embedder)))
    return embedder
