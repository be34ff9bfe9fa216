"""This module says who may serve a query at all, before anybody asks who serves it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.outcomes import Bools, Floats
from turnout.core.query import Query


def feasible(
    queries: Sequence[Query], candidates: Sequence[Candidate], *, limits_M: Floats | None = None
) -> Bools:
    """Return `allowed_QM`: capability and context fit, shape (Q, M).

    What is unknown (capabilities, context window, input tokens) never refuses: a refusal must be
    known to be right. A candidate's own token budget counts against its context window. `limits_M`
    saves the work of `input_limits(candidates)` where the pool is the same from call to call.
    """
    limits_M = input_limits(candidates) if limits_M is None else limits_M
    tokens_Q = np.array([query.input_tokens or 0.0 for query in queries], dtype=np.float64)
    allowed_QM: Bools = tokens_Q[:, None] <= limits_M
    if any(query.needs for query in queries):
        for column, candidate in enumerate(candidates):
            if candidate.capabilities is not None:
                has = candidate.capabilities
                allowed_QM[:, column] &= np.array([query.needs <= has for query in queries], np.bool_)
    return allowed_QM


def input_limits(candidates: Sequence[Candidate]) -> Floats:
    """Return how many input tokens each candidate takes, shape (M,), infinity where unknown."""
    return np.array([_input_limit(candidate) for candidate in candidates], dtype=np.float64)


def obstacles(query: Query, candidates: Sequence[Candidate]) -> Mapping[str, str]:
    """Return why each refused candidate may not serve `query`, by name; empty when all may."""
    reasons: dict[str, str] = {}
    for candidate in candidates:
        lacks = query.needs - (candidate.capabilities if candidate.capabilities is not None else query.needs)
        limit = _input_limit(candidate)
        if lacks:
            reasons[candidate.name] = f"lacks {', '.join(sorted(lacks))}"
        elif (query.input_tokens or 0) > limit:
            reasons[candidate.name] = f"takes {limit:g} input tokens, the request has {query.input_tokens}"
    return reasons


def _input_limit(candidate: Candidate) -> float:
    if candidate.context_tokens is None:
        return np.inf
    return candidate.context_tokens - (candidate.max_output_tokens or 0)
