"""This module names the content of an outcome table by a hash that no order can change."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from turnout.core.rows import MEASURES

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable
    from turnout.core.query import Query


def fingerprint_of(table: OutcomeTable) -> str:
    """Return sixteen hex digits of SHA-256 over candidates, queries and measured rows, each sorted.

    Extras are carried along and not interpreted, so they do not count.
    """
    digest = hashlib.sha256()
    # Python's sort, not numpy's: a numpy string loses the NUL characters at its end.
    order_M = sorted(range(len(table.candidates)), key=table.names.__getitem__)
    for index in order_M:
        described = table.candidates[index].to_dict()
        _add(digest, _plain(described))
    order_Q = sorted(range(len(table.queries)), key=lambda index: table.queries[index].id)
    for index in order_Q:
        _add(digest, (*_fields(table.queries[index]), table.splits[index], table.references[index]))
    rank_Q, rank_M = np.argsort(order_Q), np.argsort(order_M)
    query_N, candidate_N = rank_Q[table.query_index], rank_M[table.candidate_index]
    rows = np.lexsort((table.sample, candidate_N, query_N))
    for indices in (query_N, candidate_N, table.sample):
        digest.update(np.ascontiguousarray(indices[rows], dtype="<i8").tobytes())
    for name in MEASURES:
        digest.update(_canonical(getattr(table, name)[rows]))
    return digest.hexdigest()[:16]


def _fields(query: Query) -> tuple[object, ...]:
    # str() first: an id read from a file may be a numpy string, whose repr names its type.
    named = (str(query.id), query.text, query.task, query.num_turns, query.input_tokens)
    return (*named, sorted(query.needs), sorted(query.tags.items()))


def _plain(value: object) -> object:
    """Return a mapping as sorted pairs, so that the order of its keys does not show."""
    if isinstance(value, dict):
        return sorted((key, _plain(item)) for key, item in value.items())
    return value


def _add(digest: Any, value: object) -> None:
    digest.update(repr(value).encode("utf-8", "surrogatepass"))


def _canonical(column: npt.NDArray[np.float64]) -> bytes:
    """Return the bytes of a column in which every NaN is the same NaN, and -0.0 is 0.0."""
    return np.where(np.isnan(column), np.nan, column + 0.0).astype("<f8").tobytes()
