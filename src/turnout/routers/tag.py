"""This module scores candidates by the tags of a query: what each did, so far, under every tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.routers.evidence import LEAST_BETWEEN, floor_square
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.tag_scores import shares_of, summed, tags_of, vocabulary, widened, words_of
from turnout.routers.targets import seen_candidates

_COMMON = 0.2
"""A word in more than this share of the texts tells nothing."""


@final
class TagRouter(Router):
    """Add up the scores that a candidate has under the tags of a query; the tags are its telling words.

    A tag's score is how much better than usual the candidate was on the queries with the tag. Nothing is
    trained: a newcomer needs its own scores alone, and each tag's part of an estimate can be read off.

    Source
    ------
    S227: TagRouter, arXiv 2506.12473, read in notes alone: tags of a query, a score per tag and model, and
    the choice by the sum of scores.

    Differs
    -------
    Tags are words of the text that are neither rare nor common, in place of those of a language model that
    writes tags. Scores are graded and drawn toward 0 by `prior` rows, not counts of wins, ties and losses.
    One factor for the pool turns a sum into a quality, by leave-one-out least squares.

    Parameters
    ----------
    least:
        A tag stands in at least so many training texts.
    prior:
        Rows by which a tag's score is drawn toward 0, above 0.
    size:
        At most so many tags, the most frequent ones.

    Units
    -----
    Spread is the deviation of the candidate's quality over the root of the rows that its tags stand for, and
    wide where it has few rows under them beside its share of all (`tag_scores`).

    Cost
    ----
    O(t M) per query of t tags.
    """

    def __init__(self, *, least: int = 3, prior: float = 10.0, size: int = 5_000) -> None:
        self.least = check_count("TagRouter.least", least)
        self.prior = check_number("TagRouter.prior", prior, low=0.0, allow_low=False)
        self.size = check_count("TagRouter.size", size)
        self.pool_: Pool | None = None
        self.number_: dict[str, int] = {}
        self.factor_ = 0.0
        self.score_TM: Floats = np.zeros((0, 0))
        self.rows_TM: Floats = np.zeros((0, 0))
        self.share_T: Floats = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether tags were scored."""
        return self.pool_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Find the tags and score every candidate under them; returns self."""
        queries, targets, pool = read_pool(table)
        seen_candidates(targets)
        texts = [query.words for query in queries]
        self.number_ = vocabulary(texts, least=self.least, most_share=_COMMON, size=self.size)
        away_NM = targets.quality_QM - pool.means.quality
        row_P, tag_P = tags_of(texts, self.number_)
        self.score_TM, self.rows_TM, others_PM = self._score(row_P, tag_P, away_NM)
        self.share_T = shares_of(tag_P, len(self.number_), len(texts))
        self.factor_ = _slope(summed(row_P, others_PM, len(texts)), away_NM)
        self.pool_ = pool
        return self

    def tags(self, queries: Sequence[Query]) -> list[list[str]]:
        """Return the tags of each query, in alphabetical order."""
        self.require_fitted("tags")
        return [[word for word in words_of(query.words) if word in self.number_] for query in queries]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the mean of each candidate plus the scores of the query's tags."""
        pool = self._learned("estimate")
        row_P, tag_P = tags_of([query.words for query in queries], self.number_)
        sum_QM = summed(row_P, self.score_TM[tag_P], len(queries))
        # Tags are read as independent looks at the candidate: rows add up.
        num_QM = summed(row_P, self.rows_TM[tag_P], len(queries))
        square_QM = floor_square(pool.means.variance, pool.means.num, num_QM, LEAST_BETWEEN)
        spread_QM = widened(square_QM, (row_P, tag_P), self.rows_TM, self.share_T, pool.means.num, self.prior)
        return pool.estimate(queries, pool.means.quality + self.factor_ * sum_QM, spread_QM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Score one more candidate under the known tags, by its probe rows; returns self."""
        pool = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        row_P, tag_P = tags_of([query.words for query in queries], self.number_)
        score_TM, rows_TM, _ = self._score(row_P, tag_P, targets.quality_QM - added.means.quality)
        self.score_TM = np.concatenate([self.score_TM, score_TM], axis=1)
        self.rows_TM = np.concatenate([self.rows_TM, rows_TM], axis=1)
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return tags and scores."""
        pool = self._learned("state")
        own: dict[str, np.ndarray] = {"score": self.score_TM, "rows": self.rows_TM, "share": self.share_T}
        return State(
            arrays={**pool.arrays(), **own, "factor": np.array([self.factor_])},
            values={**pool.values(), "tags": sorted(self.number_)},
        )

    def restore(self, state: State) -> None:
        """Take over tags and scores."""
        self.pool_ = pool_from(state.arrays, state.values)
        tags = state.values["tags"]
        assert isinstance(tags, list)
        self.number_ = {tag: number for number, tag in enumerate(tags)}
        self.score_TM, self.rows_TM = state.arrays["score"], state.arrays["rows"]
        self.share_T = state.arrays.get("share", np.zeros(len(tags)))  # older artifacts have none
        self.factor_ = float(state.arrays["factor"][0])

    def _score(self, row_P: Ints, tag_P: Ints, away_NM: Floats) -> tuple[Floats, Floats, Floats]:
        """Return scores and rows per tag, (T, M), and for every pair the score without its own row."""
        known_NM = np.isfinite(away_NM).astype(np.float64)
        filled_NM = np.nan_to_num(away_NM)
        sum_TM = summed(tag_P, filled_NM[row_P], len(self.number_))
        rows_TM = summed(tag_P, known_NM[row_P], len(self.number_))
        others_PM = (sum_TM[tag_P] - filled_NM[row_P]) / (rows_TM[tag_P] - known_NM[row_P] + self.prior)
        return sum_TM / (rows_TM + self.prior), rows_TM, others_PM

    def _learned(self, move: str) -> Pool:
        self.require_fitted(move)
        assert self.pool_ is not None
        return self.pool_


def _slope(sum_NM: Floats, away_NM: Floats) -> float:
    """Return the factor of least squares through zero, in [0, 1]."""
    known_NM = np.isfinite(away_NM)
    squares = float(np.square(sum_NM)[known_NM].sum())
    if squares <= 0.0:
        return 0.0
    return float(np.clip((sum_NM[known_NM] * away_NM[known_NM]).sum() / squares, 0.0, 1.0))
