"""This module makes the small tables, estimates and texts on which the checks are run.

The numbers are synthetic and fixed. They are shaped so that a broken promise shows: a task decides which
candidate is good, no two candidates cost the same, and the names are not in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.contracts import Embedder, State
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_number

CANDIDATES = (
    Candidate(
        model="owl",
        price_card=PriceCard(input_usd_per_mtok=0.2, output_usd_per_mtok=0.8),
        descriptors={"params_b": 8.0},
    ),
    Candidate(model="ant", price_card=PriceCard(input_usd_per_mtok=0.05, output_usd_per_mtok=0.1)),
    Candidate(model="yak"),
    Candidate(model="elk", price_card=PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)),
)
"""The pool of the checks; one has no price card, and the order is not the alphabet's."""

_COST_USD_M = np.array([0.0004, 0.0001, 0.0011, 0.0080])
_QUALITY_TM = np.array([[0.85, 0.30, 0.60, 0.90], [0.35, 0.55, 0.80, 0.75], [0.60, 0.65, 0.40, 0.95]])
_WORDS = (
    "integral derivative prime sum fraction matrix angle proof root sequence limit vector".split(),
    "def return loop list function compile error index string pointer class import".split(),
    "river castle poem winter letter stranger garden voyage silver memory lantern shore".split(),
)
_TASKS = ("maths", "code", "story")


def small_queries(num_queries: int = 48, *, seed: int = 0, start: int = 0) -> list[Query]:
    """Return queries of three tasks, each with its own words; ids are `q<start>` and up."""
    rng = make_rng(seed, "checks", "texts", str(start))
    queries = []
    for index in range(start, start + num_queries):
        task = index % len(_TASKS)
        words = rng.choice(_WORDS[task], size=int(rng.integers(5, 12)))
        text = f"{' '.join(words)} {index}"
        queries.append(Query(id=f"q{index}", text=text, task=_TASKS[task]))
    return queries


def fresh_queries(num_queries: int = 9) -> list[Query]:
    """Return queries that no table of this module holds."""
    return small_queries(num_queries, seed=1, start=1000)


def small_table(num_queries: int = 48, *, seed: int = 0) -> OutcomeTable:
    """Return a full table of `num_queries` x 4 with graded quality, cost, tokens and latency."""
    queries = small_queries(num_queries, seed=seed)
    return dense_table(queries, *known_values(queries, seed=seed))


def known_values(queries: Sequence[Query], *, seed: int = 0) -> tuple[Floats, Floats]:
    """Return quality and cost in USD of the pool on these queries, both of shape (Q, M)."""
    rng = make_rng(seed, "checks", "values")
    task_Q = [_TASKS.index(query.task) if query.task in _TASKS else 0 for query in queries]
    shape = (len(queries), len(CANDIDATES))
    quality_QM = np.clip(_QUALITY_TM[task_Q] + rng.normal(0.0, 0.08, shape), 0.0, 1.0)
    cost_usd_QM = _COST_USD_M * rng.uniform(0.7, 1.4, shape)
    return quality_QM, cost_usd_QM


def dense_table(
    queries: Sequence[Query],
    quality_QM: Floats,
    cost_usd_QM: Floats,
    *,
    candidates: Sequence[Candidate] = CANDIDATES,
) -> OutcomeTable:
    """Return the table of dense values; a cell of unknown quality has no row at all."""
    row_Q, column_M = np.nonzero(~np.isnan(quality_QM))
    cost_N = cost_usd_QM[row_Q, column_M]
    # Who does not know the cost knows neither tokens nor latency: else a price card gives the cost away.
    return OutcomeTable(
        queries=queries,
        candidates=candidates,
        query_index=row_Q,
        candidate_index=column_M,
        quality=quality_QM[row_Q, column_M],
        cost_usd=cost_N,
        input_tokens=20.0 + 0.0 * cost_N,
        output_tokens=100.0 + 1e4 * cost_N,
        latency_s=0.2 + 100.0 * cost_N,
    )


def small_estimate(num_queries: int = 40, *, seed: int = 0) -> Estimate:
    """Return an estimate in which everything is known and everyone is allowed.

    On two queries of three the fourth candidate is the third one made worse in every respect, so that
    there is somebody whom no policy should choose.
    """
    rng = make_rng(seed, "checks", "estimate")
    shape = (num_queries, len(CANDIDATES))
    quality_QM = rng.uniform(0.05, 0.95, shape)
    spread_QM = rng.uniform(0.01, 0.1, shape)
    cost_usd_QM = _COST_USD_M * rng.uniform(0.5, 2.0, shape)
    latency_s_QM = rng.uniform(0.1, 5.0, shape)
    worse_Q = np.arange(num_queries) % 3 > 0
    quality_QM[worse_Q, 3] = quality_QM[worse_Q, 2] * 0.9
    for array in (spread_QM, cost_usd_QM, latency_s_QM):
        # Every second of them is exactly as dear, as slow and as certain: worse in quality alone.
        factor_Q = np.where(np.arange(num_queries) % 2, 1.0, 1.5)
        array[worse_Q, 3] = (array[:, 2] * factor_Q)[worse_Q]
    return make_estimate(
        CANDIDATES, quality_QM, spread_QM=spread_QM, cost_usd_QM=cost_usd_QM, latency_s_QM=latency_s_QM
    )


def hard_queries() -> list[Query]:
    """Return texts that break careless code: none, empty, blank, a lone surrogate, NUL, no letters."""
    texts = (
        None,
        "",
        "  \n\t ",
        "\ud800 half a pair",
        "nul \x00 inside",
        "1234 !!! \u4f60\u597d",
        "a",
        "word " * 400,
    )
    return [Query(id=f"hard{index}", text=text) for index, text in enumerate(texts)]


def long_query(num_bytes: int = 1_000_000) -> Query:
    """Return one query with a text of a megabyte."""
    line = "please read this very long log line and tell me what went wrong with request 4711\n"
    return Query(id="long", text=(line * (num_bytes // len(line) + 1))[:num_bytes])


@final
class LetterCounts(Embedder):
    """Share of each letter, minus its mean over the fitted texts; the checks' own embedder.

    It stands in for a stranger's: no registry knows it, so a router that works with it makes no
    assumption about the embedders of this package.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = check_number("LetterCounts.scale", scale, low=0.0, allow_low=False)
        self.mean_F: np.ndarray | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether the mean is known."""
        return self.mean_F is not None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn the mean share of each letter."""
        self.mean_F = self._shares(queries).mean(axis=0) if queries else np.zeros(27, np.float32)
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        """Return the centred shares, float32 of shape (Q, 27)."""
        self.require_fitted("embed")
        centred: np.ndarray = (self._shares(queries) - self.mean_F) * np.float32(self.scale)
        return centred

    def state(self) -> State:
        """Return the mean."""
        self.require_fitted("state")
        return State(arrays={"mean_F": np.asarray(self.mean_F)})

    def restore(self, state: State) -> None:
        """Take the mean back."""
        self.mean_F = np.asarray(state.arrays["mean_F"])

    def _shares(self, queries: Sequence[Query]) -> np.ndarray:
        x_QF = np.zeros((len(queries), 27), np.float32)
        for row, query in enumerate(queries):
            codes = np.frombuffer(query.words.lower().encode("utf-8", "replace"), np.uint8)
            letters = np.where((codes >= 97) & (codes <= 122), codes - 97, 26)
            if letters.size:
                x_QF[row] = np.bincount(letters, minlength=27) / letters.size
        return x_QF
