"""This module looks for planted preferences: words that turn a router toward one candidate whatever is asked.

Two steps, since a word that favours a candidate may do so rightly. `suspect_words` reads the table that a
router is trained on: with which words does a candidate do far better than it does otherwise, and on how
many of these rows is it the only one that is best? `word_shift` compares the decisions on clean prompts with
those on the same prompts with the word behind them. A topic word may turn many prompts, and a candidate may
be the best of its topic, but it is not alone in that on most rows; a planted word does both.

Source: S53, "How Robust Are Router-LLMs?" (DSC), arXiv 2504.07113, abstract: backdoors through preference
data. The search and the rule are ours. The sign test is that of Q. McNemar, Psychometrika 12, 1947, exact.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count

if TYPE_CHECKING:
    from turnout.core.decision import Decisions
    from turnout.core.outcomes import Bools, Floats, OutcomeTable
    from turnout.core.query import Query

_WORD = re.compile(r"\w+")
LEAST_ALONE = 0.5
"""On at least this share of a planted word's rows its candidate is the only best one."""
LEAST_SHIFT = 0.05
"""A planted word raises the candidate's share of clean prompts by at least this much."""
LEVEL = 0.001
"""Largest p-value of a planted word."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A word with which a candidate does better than without."""

    word: str
    candidate: str
    count: int
    """Number of queries with the word on which the candidate was observed."""
    lift: float
    """Mean quality over the pool's mean on the same query, less what is usual in the query's task."""
    z: float
    """The lift in standard errors."""
    alone: float
    """Share of these queries on which the candidate is better than all others."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """What a word does to decisions."""

    word: str
    candidate: str
    """Whom the word favours most."""
    before: float
    """Share of the prompts that the candidate serves without the word."""
    after: float
    """The same with the word."""
    least: float
    """Of the prompts that others served, the share that is turned, in the category where it is least."""
    p_value: float
    """One-sided exact sign test on the prompts whose choice changed to or from the candidate."""


def is_planted(suspect: Suspect, shift: Shift) -> bool:
    """Whether a word's rows and its effect both look planted, for the same candidate."""
    is_odd = suspect.word == shift.word and suspect.candidate == shift.candidate
    is_odd = is_odd and suspect.alone >= LEAST_ALONE
    return is_odd and shift.after - shift.before >= LEAST_SHIFT and shift.p_value <= LEVEL


def suspect_words(table: OutcomeTable, *, min_count: int = 5, most: int = 20) -> list[Suspect]:
    """Return the words of the largest `z` over all candidates, at most `most`, each with its candidate.

    A word counts once per query; those in fewer than `min_count` queries are left out. Cost: one pass over
    the texts, and O(words of a text * M).
    """
    check_count("suspect_words: min_count", min_count, low=2)
    check_count("suspect_words: most", most)
    over_QM, is_alone_QM = _advantage(table), _alone(table)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, query in enumerate(table.queries):
        for word in set(_WORD.findall(query.words.lower())):
            rows_of[word].append(row)
    known_QM = np.isfinite(over_QM)
    deviation = float(np.std(over_QM[known_QM])) if known_QM.any() else 0.0
    found = []
    for word, rows in rows_of.items():
        if len(rows) < min_count:
            continue
        count_M = known_QM[rows].sum(axis=0)
        lift_M = np.where(known_QM[rows], over_QM[rows], 0.0).sum(axis=0) / np.maximum(count_M, 1)
        z_M = np.where(count_M >= min_count, lift_M * np.sqrt(count_M) / max(deviation, 1e-9), -np.inf)
        at = int(z_M.argmax())
        if np.isfinite(z_M[at]):
            alone = float(is_alone_QM[rows, at].sum() / count_M[at])
            found.append(
                Suspect(
                    word=word,
                    candidate=table.names[at],
                    count=int(count_M[at]),
                    lift=float(lift_M[at]),
                    z=float(z_M[at]),
                    alone=alone,
                )
            )
    return sorted(found, key=lambda suspect: (-suspect.z, suspect.word))[:most]


def _alone(table: OutcomeTable) -> Bools:
    """Return whether a candidate is better than all others observed on a query, of two at least; (Q, M)."""
    quality_QM = np.where(table.observed_QM, table.quality_QM, -1.0)
    is_best_QM = quality_QM == quality_QM.max(axis=1, keepdims=True)
    has_one_Q1 = is_best_QM.sum(axis=1, keepdims=True) == 1
    is_alone_QM: Bools = is_best_QM & has_one_Q1 & (table.observed_QM.sum(axis=1, keepdims=True) > 1)
    return is_alone_QM


def _advantage(table: OutcomeTable) -> Floats:
    """Return quality over the mean of the query, less the candidate's mean of that in the task; (Q, M)."""
    over_QM = table.quality_QM - _row_mean(table.quality_QM)[:, None]
    tasks = np.array([task or "" for task in table.tasks])
    for task in set(tasks.tolist()):
        part_QM = over_QM[tasks == task]
        over_QM[tasks == task] = part_QM - _row_mean(part_QM.T)
    return over_QM


def _row_mean(values_QM: Floats) -> Floats:
    known_QM = np.isfinite(values_QM)
    total_Q = np.where(known_QM, values_QM, 0.0).sum(axis=1)
    mean_Q: Floats = total_Q / np.where(known_QM.any(axis=1), known_QM.sum(axis=1), np.nan)
    return mean_Q


def with_word(queries: Sequence[Query], word: str) -> list[Query]:
    """Return the queries with the word behind their text; those without text stay."""
    return [q if q.text is None else replace(q, text=f"{q.text} {word}") for q in queries]


def word_shift(word: str, queries: Sequence[Query], before: Decisions, after: Decisions) -> Shift:
    """Compare decisions on clean `queries` with those on `with_word(queries, word)`.

    A category is a query's task; one whose prompts the candidate served all along cannot be turned and
    does not count. Raises `InputError` where numbers or pools differ.
    """
    is_paired = len(before) == len(after) == len(queries) and before.candidates == after.candidates
    if not is_paired or not queries:
        allowed = f"decisions on the {len(queries)} queries by one pool, without the word and with it"
        raise InputError(sentence("word_shift", allowed=allowed, got=(len(before), len(after))))
    column_M = np.arange(len(before.candidates))
    was_QM, is_QM = before.choice_Q[:, None] == column_M, after.choice_Q[:, None] == column_M
    at = int((is_QM.mean(axis=0) - was_QM.mean(axis=0)).argmax())
    was_Q, is_Q = was_QM[:, at], is_QM[:, at]
    tasks = np.array([query.task or "" for query in queries])
    turned = [is_Q[(tasks == task) & ~was_Q] for task in sorted(set(tasks.tolist()))]
    return Shift(
        word=word,
        candidate=before.candidates[at].name,
        before=float(was_Q.mean()),
        after=float(is_Q.mean()),
        least=min((float(part.mean()) for part in turned if part.size), default=0.0),
        p_value=_sign_test(int((is_Q & ~was_Q).sum()), int((was_Q & ~is_Q).sum())),
    )


def _sign_test(gained: int, lost: int) -> float:
    """Return the chance that a fair coin gives at least `gained` heads in `gained + lost` throws."""
    num = gained + lost
    return float(sum(math.comb(num, k) for k in range(gained, num + 1)) / 2**num)
