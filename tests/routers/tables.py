"""This module builds the outcome tables on which routers are tried."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets import load
from turnout.routers import registry
from turnout.routers.means import means_of
from turnout.routers.targets import read_targets

ARRAYS = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM")


def router_names() -> list[str]:
    """Return the names of all routers that can learn here: the neural ones need torch."""
    has_torch = importlib.util.find_spec("torch") is not None
    return [name for name in registry if has_torch or ".neural." not in registry.path(name)]


@cache
def real_table(num: int = 240) -> OutcomeTable:
    """Return some questions of a bundled table, all tasks among them."""
    table = load("open9")
    keep_Q = np.zeros(len(table.queries), np.bool_)
    keep_Q[:: len(table.queries) // num] = True
    return table.where(keep_Q)


@cache
def holed_table(num: int = 240) -> OutcomeTable:
    """Return the same without a third of its rows, other rows for each candidate."""
    table = real_table(num)
    drop_N = (table.query_index * 7 + table.candidate_index * 3) % 10 < 3
    return table.with_rows(~drop_N)


def dense_table(
    quality_QM: np.ndarray,
    texts: list[str],
    *,
    tasks: Sequence[str | None] | None = None,
    cost_usd: np.ndarray | None = None,
    latency_s: np.ndarray | None = None,
) -> OutcomeTable:
    """Return a table from dense arrays; NaN cells stay rows of unknown quality."""
    num_queries, num_candidates = quality_QM.shape
    names = tasks or [None] * num_queries
    return OutcomeTable(
        queries=[Query(id=f"q{i}", text=t, task=names[i]) for i, t in enumerate(texts)],
        candidates=[Candidate(model=f"m{j}") for j in range(num_candidates)],
        query_index=np.repeat(np.arange(num_queries), num_candidates),
        candidate_index=np.tile(np.arange(num_candidates), num_queries),
        quality=quality_QM.ravel(),
        cost_usd=None if cost_usd is None else cost_usd.ravel(),
        latency_s=None if latency_s is None else latency_s.ravel(),
    )


def shuffled(table: OutcomeTable, seed: int) -> OutcomeTable:
    """Return the same outcomes with queries, candidates and rows in another order."""
    rng = np.random.default_rng(seed)
    queries, candidates = rng.permutation(len(table.queries)), rng.permutation(len(table.candidates))
    rows = rng.permutation(table.num_rows)
    return OutcomeTable(
        queries=[table.queries[i] for i in queries],
        candidates=[table.candidates[j] for j in candidates],
        query_index=np.argsort(queries)[table.query_index][rows],
        candidate_index=np.argsort(candidates)[table.candidate_index][rows],
        quality=table.quality[rows],
        cost_usd=table.cost_usd[rows],
        latency_s=table.latency_s[rows],
    )


def flat_length(table: OutcomeTable) -> OutcomeTable:
    """Return the same outcomes with every prompt said to be of the same length in tokens."""
    return OutcomeTable(
        queries=[replace(query, input_tokens=100) for query in table.queries],
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
    )


def with_stranger(table: OutcomeTable) -> OutcomeTable:
    """Return the table with one more candidate that was never observed."""
    return OutcomeTable(
        queries=table.queries,
        candidates=[*table.candidates, replace(table.candidates[0], model="stranger")],
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
    )


def plain_means(table: OutcomeTable, num_queries: int) -> Estimate:
    """Return each candidate's average over what was observed of it, for so many queries."""
    return means_of(read_targets(table)[1]).estimate(table.candidates, num_queries)


def assert_same(left: Estimate, right: Estimate, *, rtol: float = 1e-7, atol: float = 1e-9) -> None:
    """Assert that two estimates agree in every number, NaN and infinity included."""
    assert left.names == right.names
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(left, name), getattr(right, name), rtol=rtol, atol=atol, err_msg=name
        )


WORDS = {
    "maths": "integral prime fraction matrix angle proof root sequence",
    "code": "loop compile pointer class import string index function",
    "story": "castle winter stranger garden silver lantern shore river",
}


def worded_queries(num: int, *, seed: int = 0, has_task: bool = True) -> list[Query]:
    """Return queries of three tasks that share no word, so that a text tells its task."""
    rng = np.random.default_rng(seed)
    tasks = [list(WORDS)[i % len(WORDS)] for i in range(num)]
    return [
        Query(
            id=f"q{i}",
            text=" ".join(rng.choice(WORDS[task].split(), 6)),
            task=task if has_task else None,
        )
        for i, task in enumerate(tasks)
    ]


def worded_table(
    quality_QM: np.ndarray, *, seed: int = 0, cost_usd: np.ndarray | None = None
) -> OutcomeTable:
    """Return a table of `worded_queries` from dense arrays."""
    queries = worded_queries(len(quality_QM), seed=seed)
    return dense_table(
        quality_QM,
        [query.words for query in queries],
        tasks=[query.task for query in queries],
        cost_usd=cost_usd,
    )
