"""A row that breaks a rule is refused, and the sentence names the row, the query and the candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.tables import hand_table
from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, TableError
from turnout.core.query import Query


def q(*ids: str) -> list[Query]:
    return [Query(id=query_id, text=None) for query_id in ids]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"quality": [1.0, 0.5, np.nan, 1.25, 0.0]},
            r"row 3 \(query 'q2', candidate 'ant'\); allowed: \[0, 1\] or unknown; got: 1.25; rescale",
        ),
        (
            {"quality": [1.0, -0.5, np.nan, -1.0, 0.0]},
            r"quality in row 1 \(query 'q0', candidate 'ant'\) and 1 more rows; .*; got: -0.5; rescale",
        ),
        ({"quality": [1.0, np.inf, np.nan, 1.0, 0.0]}, "quality in row 1 .*; got: inf; write null"),
        (
            {"cost_usd": [-0.1, 0, 0, 0, 0]},
            r"cost_usd in row 0 .*; allowed: a finite number of at least 0, or unknown; got: -0.1; write",
        ),
        ({"input_tokens": [0, 0, np.inf, 0, 0]}, "input_tokens in row 2 .*; got: inf; write null where"),
        ({"output_tokens": [0, 0, 0, 0, -7]}, "output_tokens in row 4 .*; got: -7.0"),
        ({"latency_s": [0, -1, 0, 0, 0]}, "latency_s in row 1 .*; got: -1.0"),
        (
            {"query_index": [0, 0, 1, 3, 0]},
            "query_index in row 3; allowed: a known query; got: 3.0; point to",
        ),
        ({"query_index": [0, 0, -1, 2, 0]}, "query_index in row 2; allowed: a known query; got: -1.0"),
        (
            {"candidate_index": [0, 1, 0, 2, 0]},
            "candidate_index in row 3; allowed: a known candidate; got: 2.0",
        ),
        ({"candidate_index": [0, 1]}, r"candidate_index; allowed: shape \(N,\) = \(5,\); got: \(2,\)"),
        ({"sample": [0, 1]}, r"sample; allowed: shape \(N,\) = \(5,\); got: \(2,\)"),
        (
            {"queries": q("q0", "q1", "q0")},
            r"queries: row 2 repeats the id of row 0; allowed: every id once; got: 'q0'; keep one row",
        ),
        (
            {"queries": [], "splits": None, "references": None},
            "queries; allowed: at least one; got: 'none'; give the queries",
        ),
        (
            {"sample": [0, 0, 0, 0, 0]},
            r"row 4 repeats \(query 'q0', candidate 'owl', sample 0\); .*; number repetitions in the column",
        ),
    ],
)
def test_a_wrong_row_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        hand_table(**changes)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ([], "candidates; allowed: at least one candidate, every name once; got: 'no candidate'"),
        ([Candidate(model="owl"), Candidate(model="owl")], r"candidates; .*; got: \['owl'\]"),
    ],
)
def test_a_pool_has_somebody_and_nobody_twice(pool: list[Candidate], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hand_table(candidates=pool, query_index=[], candidate_index=[], sample=[], quality=[], cost_usd=[])


def test_samples_may_be_numbered_from_anywhere() -> None:
    assert hand_table(sample=[-3, 7, 7, 100, 100]).num_rows == 5
