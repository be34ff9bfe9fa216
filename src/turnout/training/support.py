"""This module finds where candidates could not have been observed, so that they are not chosen there.

The value of a choice can be learned only where it had a chance to be made (overlap, or positivity).
Elsewhere a candidate that ran on its own task alone, and was good at it, looks good at everything, and no
held-out outcome speaks against it. So a candidate is left out where

- the task is one on which it was not observed, or
- the text scores below a cut: the score is a ridge regression of "was observed" on the text, judged on
  queries that it did not learn from, and below the cut the observed share is under `MIN_CHANCE`. The cut is
  that of isotonic regression, which is where `sum(observed - limit)` over rising scores is least.

Both must be no accident: if outcomes were missing at random at the candidate's own rate r, so few of n
queries would be observed with a probability of at most exp(-n KL(share, r)) (Chernoff), which must be
one in ten thousand after counting everything that was tried. The limit of a candidate that is rare
everywhere is a quarter of its rate. So a table whose cells are missing at random is left as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from turnout.core.contracts import Embedder
from turnout.core.outcomes import Bools, Floats, OutcomeTable
from turnout.features import TextEmbedder
from turnout.policies.support import Support
from turnout.training.missing import MIN_CHANCE, cross_fitted, linear

_SURE = float(np.log(1e4))
_QUARTER = 0.25
_MAX_NAMES = 5
_WIDE = 0.95
"""Share of the queries on which a single model must be offered to stand for all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Where candidates may be chosen, and on which queries of the table that is so."""

    support: Support
    allowed_QM: Bools
    """Of the table's queries, by scores that did not learn from them."""

    def of(self, table: OutcomeTable, part: OutcomeTable) -> Bools:
        """Return the mask of some of the table's queries."""
        row = {query.id: number for number, query in enumerate(table.queries)}
        return self.allowed_QM[[row[query.id] for query in part.queries]]


def find_support(
    table: OutcomeTable, embedder: Embedder | None, x_QF: np.ndarray | None = None, *, reads_tasks: bool
) -> Found | None:
    """Return where each candidate may be chosen, None where everybody may be everywhere.

    `embedder` (None is `TextEmbedder()`) and `x_QF` are what texts are read through and their vectors;
    `reads_tasks` says whether requests come with their task, so that the mask of the table's queries uses it.
    """
    seen_QM = table.observed_QM
    rate_M = seen_QM.mean(axis=0)
    partial = np.flatnonzero((rate_M > 0.0) & (rate_M < 1.0))
    if not partial.size:
        return None
    limit_M = np.minimum(MIN_CHANCE, _QUARTER * rate_M)
    tasks, unseen_KM = _unseen_tasks(table, seen_QM, rate_M, limit_M)
    given = TextEmbedder() if embedder is None else embedder
    embedder = given if given.is_fitted else given.clone().fit(table.queries)
    x_QF = np.asarray(embedder.embed(table.queries) if x_QF is None else x_QF, np.float64)
    score_QP, penalty = cross_fitted(seen_QM[:, partial], x_QF)
    cut_M = np.full(rate_M.size, -np.inf)
    cut_M[partial] = [
        _cut(score_QP[:, p], seen_QM[:, m], limit_M[m], partial.size) for p, m in enumerate(partial)
    ]
    if not (np.isfinite(cut_M).any() or unseen_KM.any()):
        return None
    weight_FM, bias_M = np.zeros((x_QF.shape[1], rate_M.size)), rate_M.copy()
    weight_FM[:, partial], bias_M[partial] = linear(seen_QM[:, partial], x_QF, penalty)
    score_QM = np.full(seen_QM.shape, np.inf)
    score_QM[:, partial] = score_QP
    is_in_QM: Bools = score_QM > cut_M
    by_task_QM = np.zeros_like(is_in_QM)
    for row, task in enumerate(tasks):
        by_task_QM[[name == task for name in table.tasks]] = unseen_KM[row]
    used_QM = is_in_QM & ~by_task_QM if reads_tasks else is_in_QM
    used_QM = used_QM | ~used_QM.any(axis=1, keepdims=True)
    support = Support(
        embedder=embedder,
        weight_FM=weight_FM,
        bias_M=bias_M,
        cut_M=cut_M,
        tasks={task: row for row, task in enumerate(tasks)},
        unseen_KM=unseen_KM,
        share_M=(is_in_QM & ~by_task_QM).mean(axis=0),
    )
    return Found(support=support, allowed_QM=used_QM)


def wide(table: OutcomeTable, found: Found | None) -> OutcomeTable:
    """Return the table of the candidates that may stand for all queries; of all, where none may."""
    if found is None:
        return table
    is_wide_M = found.support.share_M >= _WIDE
    names = [name for name, is_wide in zip(table.names, is_wide_M.tolist(), strict=True) if is_wide]
    return table.select(candidates=names) if names else table


def about_support(table: OutcomeTable, found: Found | None) -> tuple[str, ...]:
    """Return one note for each of the first candidates that are not offered everywhere."""
    if found is None:
        return ()
    notes = []
    narrow = np.flatnonzero(found.support.share_M < _WIDE).tolist()
    for column in narrow[:_MAX_NAMES]:
        seen_Q = table.observed_QM[:, column]
        tasks = sorted(
            {task or "" for task, is_seen in zip(table.tasks, seen_Q.tolist(), strict=True) if is_seen}
        )
        of = f", all of task {', '.join(map(repr, tasks))}" if all(tasks) and len(tasks) <= _MAX_NAMES else ""
        notes.append(
            f"{table.names[column]!r} was observed on {seen_Q.mean():.0%} of the queries{of}; it is offered "
            "only to queries like those; ask it some tens of the others and fit again"
        )
    if len(narrow) > _MAX_NAMES:
        notes.append(f"{len(narrow) - _MAX_NAMES} more candidates are offered only where they were observed")
    return tuple(notes)


def _unseen_tasks(
    table: OutcomeTable, seen_QM: Bools, rate_M: Floats, limit_M: Floats
) -> tuple[list[str], Bools]:
    """Return the tasks on which somebody was not observed, and who, shape (K, M)."""
    count = Counter(task for task in table.tasks if task is not None)
    rows, names = [], []
    for task in sorted(count):
        seen_M = seen_QM[[name == task for name in table.tasks]].sum(axis=0)
        tried = np.log(len(count) * rate_M.size)
        unseen_M = _is_low(seen_M, count[task], rate_M, limit_M, tried)
        if unseen_M.any():
            rows.append(unseen_M)
            names.append(task)
    return names, np.array(rows, np.bool_).reshape(len(rows), rate_M.size)


def _cut(score_Q: Floats, seen_Q: Bools, limit: float, num_tried: int) -> float:
    """Return the score up to which a candidate is observed too rarely; minus infinity for none."""
    order = np.argsort(score_Q, kind="stable")
    # A cut stands between two scores, so that equal ones fall on one side.
    score_Q, seen_Q = score_Q[order], seen_Q[order]
    ends = np.flatnonzero(np.append(score_Q[1:] > score_Q[:-1], False))
    if not ends.size:
        return -np.inf
    number_E, seen_E = ends + 1, np.cumsum(seen_Q)[ends]
    best = int((seen_E - limit * number_E).argmin())
    rate, tried = np.array([seen_Q.mean()]), float(np.log(num_tried * ends.size))
    is_low = _is_low(seen_E[[best]], int(number_E[best]), rate, np.array([limit]), tried)
    return float(score_Q[ends[best]]) if is_low[0] else -np.inf


def _is_low(seen_M: np.ndarray, num: int, rate_M: Floats, limit_M: Floats, tried: float) -> Bools:
    """Return whether so few of `num` queries were observed that it is below the limit, and no accident."""
    share_M = seen_M / num
    with np.errstate(divide="ignore", invalid="ignore"):
        apart_M = np.where(share_M > 0.0, share_M * np.log(share_M / rate_M), 0.0)
        apart_M = apart_M + (1.0 - share_M) * np.log((1.0 - share_M) / (1.0 - rate_M))
    is_low_M: Bools = (rate_M > 0.0) & (rate_M < 1.0) & (share_M < limit_M) & (num * apart_M > _SURE + tried)
    return is_low_M
