"""This module predicts each candidate's average on the task of the query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_number
from turnout.routers.evidence import LEAST_BETWEEN, evidence_by, floor_square
from turnout.routers.means import Means, means_from, means_of
from turnout.routers.targets import Targets, pack_candidates, probe_of, read_targets, unpack_candidates


@final
class GroupMeanRouter(Router):
    """Predict the training mean per candidate and task, drawn toward the candidate's overall mean.

    `(n mean_task + prior mean) / (n + prior)` with n observations of the candidate on the task. A query
    without a task, or with one that was never seen, gets the overall mean.

    Source
    ------
    W. James, C. Stein, "Estimation with quadratic loss", 1961, for shrinkage toward a common mean; the
    baseline "best model per task" of C. Hu et al., "RouterBench", 2024.

    Parameters
    ----------
    prior:
        Weight of the overall mean, in observations, at least 0; infinity gives that mean alone.

    Units
    -----
    Spread is the standard error of the shrunk mean, the prior counting as `prior` observations, and no
    narrower than `evidence` allows.

    Cost
    ----
    O(M) per query. `Query.task` is read, never guessed: use it where the caller knows the task.
    """

    def __init__(self, *, prior: float = 10.0) -> None:
        self.prior = check_number("GroupMeanRouter.prior", prior, low=0.0)
        self.candidates_: tuple[Candidate, ...] = ()
        self.groups_: dict[str, Means] = {}
        self.overall_: Means | None = None
        self.between_ = LEAST_BETWEEN
        self.share_: dict[str, float] = {}
        """Share of the training queries of each task."""

    @property
    def is_fitted(self) -> bool:
        """Whether averages were learned."""
        return self.overall_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Average per task and overall; returns self."""
        queries, targets = read_targets(table)
        self.candidates_ = table.candidates
        self.overall_ = means_of(targets)
        self.groups_ = _by_task(queries, targets)
        self.between_ = _between(queries, targets)
        count = Counter(query.task for query in queries if query.task is not None)
        self.share_ = {task: count[task] / count.total() for task in self.groups_}
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the shrunk mean of each query's task."""
        overall = self._overall("estimate")
        tasks = [query.task if query.task in self.groups_ else None for query in queries]
        order = {task: row for row, task in enumerate(dict.fromkeys(tasks))}
        rows = [self._shrunk(None if task is None else self.groups_[task], overall) for task in order]
        pick = [order[task] for task in tasks]
        shape = (4, 0, len(self.candidates_))
        answer = np.stack(rows, axis=1)[:, pick] if rows else np.zeros(shape)
        return make_estimate(
            self.candidates_, answer[0], spread_QM=answer[1], cost_usd_QM=answer[2], latency_s_QM=answer[3]
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its rows, task by task; returns self."""
        overall = self._overall("add_candidate")
        queries, targets = read_targets(probe_of(table, candidate, self.candidates_))
        found = _by_task(queries, targets)
        nobody, nobody_new = _nothing(len(self.candidates_)), _nothing(1)
        self.groups_ = {
            task: self.groups_.get(task, nobody).with_added(found.get(task, nobody_new))
            for task in sorted({*self.groups_, *found})
        }
        self.overall_ = overall.with_added(means_of(targets))
        self.candidates_ = (*self.candidates_, candidate)
        return self

    def state(self) -> State:
        """Return the averages."""
        every = [self._overall("state"), *self.groups_.values()]
        arrays = {f.name: np.stack([getattr(means, f.name) for means in every]) for f in fields(Means)}
        values = {"candidates": pack_candidates(self.candidates_), "tasks": list(self.groups_)}
        return State(arrays={**arrays, "share": self._shares()}, values={**values, "between": self.between_})

    def restore(self, state: State) -> None:
        """Take over averages."""
        tasks = state.values["tasks"]
        if not isinstance(tasks, list):
            raise InputError(sentence("the state of GroupMeanRouter", allowed="a list of tasks", got=tasks))
        every = [
            means_from({f.name: state.arrays[f.name][row] for f in fields(Means)})
            for row in range(len(tasks) + 1)
        ]
        self.overall_ = every[0]
        self.groups_ = dict(zip(tasks, every[1:], strict=True))
        share_T = state.arrays.get("share", np.zeros(len(tasks)))  # older artifacts have none
        self.share_ = dict(zip(tasks, share_T.tolist(), strict=True))
        self.candidates_ = unpack_candidates(state.values["candidates"])
        between = state.values.get("between", LEAST_BETWEEN)  # older artifacts have none
        assert isinstance(between, float)
        self.between_ = between

    def _shrunk(self, group: Means | None, overall: Means) -> Floats:
        """Return quality, spread, cost and latency of one task, or of an unknown one, shape (4, M)."""
        tasks = list(self.groups_.values())
        num_TM = np.stack([means.num for means in tasks]) if tasks else np.zeros((1, overall.num.size))
        share_T = self._shares() if tasks else np.zeros(1)
        square_TM = floor_square(overall.variance, overall.num, num_TM, self.between_, share_T)
        # Any of the known tasks, or another: as unknown as those together.
        own = next((row for row, means in enumerate(tasks) if means is group), None)
        square_M = square_TM.mean(axis=0) if own is None else square_TM[own]
        found_AM = _shrunk(overall if group is None else group, overall, self.prior, is_own=group is not None)
        if np.isfinite(self.prior):  # else tasks are said to make no difference
            found_AM[1] = np.maximum(found_AM[1], np.sqrt(square_M))
        return found_AM

    def _shares(self) -> Floats:
        """Return the share of each task, shape (T,); 0 of one that a newcomer's probes brought."""
        return np.array([self.share_.get(task, 0.0) for task in self.groups_])

    def _overall(self, move: str) -> Means:
        self.require_fitted(move)
        assert self.overall_ is not None
        return self.overall_


def _by_task(queries: Sequence[Query], targets: Targets) -> dict[str, Means]:
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        if query.task is not None:
            rows.setdefault(query.task, []).append(row)
    return {task: means_of(targets.take(np.array(rows[task], np.int64))) for task in sorted(rows)}


def _between(queries: Sequence[Query], targets: Targets) -> float:
    """Return the variance of averages between tasks; the least where no task is named."""
    names = sorted({query.task for query in queries if query.task is not None})
    order = {name: column for column, name in enumerate(names)}
    rows = [row for row, query in enumerate(queries) if query.task in order]
    if not rows:
        return LEAST_BETWEEN
    share_NT = np.eye(len(names))[[order[queries[row].task or ""] for row in rows]]
    return evidence_by(share_NT, targets.quality_QM[rows]).between


def _nothing(num_candidates: int) -> Means:
    unknown = np.full((1, num_candidates), np.nan)
    return means_of(Targets(unknown, unknown, unknown))


def _shrunk(group: Means, overall: Means, prior: float, *, is_own: bool) -> Floats:
    """Return quality, spread, cost and latency of one task, shape (4, M)."""
    if not is_own or np.isinf(prior):
        return np.stack([overall.quality, overall.standard_error(), overall.cost_usd, overall.latency_s])
    weight = group.num + prior
    is_empty = weight <= 0
    share = np.where(is_empty, 0.0, group.num / np.where(is_empty, 1.0, weight))
    # With thin evidence the deviation of the task is not known better than that of all tasks.
    variance = share * np.nan_to_num(group.variance) + (1.0 - share) * overall.variance
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variance / np.where(is_empty, overall.num, weight))
    return np.stack(
        [
            _mix(share, group.quality, overall.quality),
            np.where(overall.num > 0, error, np.inf),
            _mix(share, group.cost_usd, overall.cost_usd),
            _mix(share, group.latency_s, overall.latency_s),
        ]
    )


def _mix(share: Floats, own: Floats, common: Floats) -> Floats:
    return np.where(np.isnan(own), common, share * np.nan_to_num(own) + (1.0 - share) * common)
