"""This module learns one task after the other, each from its own rows alone, and forgets none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.evidence import LEAST_BETWEEN, MOST, floor_square
from turnout.routers.packing import below, numbered
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.routing_vectors import learn_vector, shares_of
from turnout.routers.targets import Targets, seen_candidates
from turnout.routers.task_records import TaskRecord, known_of, record_from, record_of


@final
class ContinualRouter(Router):
    """Give every task a vector of its own, and route a text to those who do well on the tasks it is like.

    `fit` learns the tasks of a table; `learn_task` adds later ones, with their experts, from the rows of
    the new tasks alone. Nothing that was learned of an old task is touched, no old row is kept, and tasks
    learned one after the other give the same estimates as all of them at once. An expert that was never
    tried on a task stands just below the best one that was, so a new expert takes no old task over.

    Source
    ------
    S18: J. Mohta et al., "Dynamic Routing Between Experts", arXiv 2511.01831 (abstract, and a review of its
    method): an expert per task and a routing vector per expert, each trained on the current task alone with
    all else frozen, put together by the rule of PHATGOOSE (arXiv 2402.05859, sections 3.1 and 3.2).

    Differs
    -------
    The paper routes every token at every layer among low-rank adapters of one model (`turnout.nn.adapters`
    does: `PhatgooseRouter`); here a request is routed once, by its embedding, among candidates. What an
    expert gives on its task is an average of recorded outcomes. Any candidate may be tried on any task.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`, fitted on the first table and frozen from then
        on: words that only later tasks use are not read, so a sentence encoder is better. A fitted one is
        shared as it is.
    top_k:
        So many tasks share a text (2 in PHATGOOSE).
    prior:
        Rows by which an average on a task is drawn toward that of everybody on this task.

    Units
    -----
    Spread is the deviation of the mixture over tasks, each with the standard error of its average, and no
    narrower than `evidence` allows.

    Cost
    ----
    O(F D + D M) per query; a task costs O(N F^2) to learn.
    """

    def __init__(self, *, embedder: Embedder | None = None, top_k: int = 2, prior: float = 10.0) -> None:
        if embedder is not None:
            check_kind("ContinualRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.top_k = check_count("ContinualRouter.top_k", top_k)
        self.prior = check_number("ContinualRouter.prior", prior, low=0.0)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.records_: dict[str, TaskRecord] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether a task was learned."""
        return bool(self.records_)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were learned, in alphabetical order; one without a name where none was given."""
        self.require_fitted("tasks")
        return tuple(sorted(self.records_))

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the tasks of a table, one by one; what was learned before is forgotten; returns self."""
        queries, targets, pool = read_pool(table)
        seen_candidates(targets)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        self.records_ = self._learn(queries, targets, pool.charges.lines(queries))
        self.pool_ = pool
        return self

    def learn_task(self, table: OutcomeTable) -> Self:
        """Learn further tasks from a table that holds nothing else; returns self.

        Candidates that the pool does not have join it. Raises `InputError` for a task that is known already.
        """
        pool = self._pool("learn_task")
        queries, targets, added = read_pool(table)
        seen_candidates(targets)
        known = sorted({query.task or "" for query in queries} & set(self.records_))
        if known:
            raise InputError(
                sentence(
                    "ContinualRouter.learn_task", allowed="tasks that are new", got=known,
                    do="leave their rows out, or fit again on everything",
                )
            )  # fmt: skip
        both, place = _joined(pool, added)
        num, before = len(both.candidates), np.arange(len(pool.candidates))
        fresh = self._learn(queries, targets, both.charges.lines(queries)[:, place])
        self.records_ = {
            **{name: record.placed(before, num) for name, record in self.records_.items()},
            **{name: record.placed(place, num) for name, record in fresh.items()},
        }
        self.pool_ = both
        return self

    def shares(self, queries: Sequence[Query]) -> Floats:
        """Return what each task has of each text, shape (Q, D), in the order of `tasks`."""
        self._pool("shares")
        vector_DF = np.stack([self.records_[name].vector_F for name in self.tasks])
        return shares_of(self._embed(queries), vector_DF, self.top_k)

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages on the tasks that each text is like, mixed by its shares."""
        pool, share_QD = self._pool("estimate"), self.shares(queries)
        records = [self.records_[name] for name in self.tasks]
        quality_DM, error_DM = (
            np.stack(part) for part in zip(*(one.expected(self.prior) for one in records), strict=True)
        )
        ratio_DM = np.stack([one.ratios(pool.charges.ratio, self.prior) for one in records])
        quality_QM = share_QD @ quality_DM
        around_QM = np.maximum(share_QD @ quality_DM**2 - quality_QM**2, 0.0)
        spread_QM = np.sqrt(share_QD @ error_DM**2 + around_QM)
        # As `evidence` has it: the rows of the prior are nobody's, and who has few outcomes is unsure.
        least_QM = floor_square(*known_of(records), share_QD @ [one.num_M for one in records], LEAST_BETWEEN)
        spread_QM = np.maximum(spread_QM, np.minimum(np.sqrt(least_QM), MOST))
        return pool.estimate(queries, quality_QM, spread_QM, ratio_QM=share_QD @ ratio_DM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows, on the known tasks they name or are like."""
        pool = self._pool("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        like_Q = self.shares(queries).argmax(axis=1)
        names = [
            query.task if query.task in self.records_ else self.tasks[like]
            for query, like in zip(queries, like_Q.tolist(), strict=True)
        ]
        over = targets.over(added.charges.lines(queries))
        self.records_ = {
            name: record.with_candidate(over.take(np.flatnonzero([other == name for other in names])))
            for name, record in self.records_.items()
        }
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return tasks and averages; no row of any table is among them."""
        pool = self._pool("state")
        assert self.embedder_ is not None
        arrays = numbered(self.records_[name].arrays() for name in self.tasks)
        return State(
            arrays={**pool.arrays(), **arrays},
            values={**pool.values(), "tasks": list(self.tasks)},
            parts=embedder_parts(self.embedder, self.embedder_),
        )

    def restore(self, state: State) -> None:
        """Take over tasks and averages."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        tasks = state.values["tasks"]
        assert isinstance(tasks, list)
        self.records_ = {name: record_from(below(f"{i}/", state.arrays)) for i, name in enumerate(tasks)}

    def _learn(self, queries: Sequence[Query], targets: Targets, line_NM: Floats) -> dict[str, TaskRecord]:
        """Return the record of every task of some rows, each from its own rows alone."""
        names = [query.task or "" for query in queries]
        u_NF, over = self._embed(queries), targets.over(line_NM)
        found = {}
        for name in sorted(set(names)):
            rows = np.flatnonzero([other == name for other in names])
            part = over.take(rows)
            if np.isfinite(part.quality_QM).any():
                found[name] = record_of(learn_vector(u_NF[rows]), part)
        return found

    def _embed(self, queries: Sequence[Query]) -> Floats:
        assert self.embedder_ is not None
        return np.asarray(self.embedder_.embed(queries), np.float64)

    def _pool(self, move: str) -> Pool:
        self.require_fitted(move)
        assert self.pool_ is not None
        return self.pool_


def _joined(pool: Pool, added: Pool) -> tuple[Pool, Ints]:
    """Return the pool with the candidates that it lacks, and the place of each that was added.

    One that was listed and never observed is known from now on.
    """
    names = [candidate.name for candidate in pool.candidates]
    source, place = list(range(len(names))), []
    for at, candidate in enumerate(added.candidates, start=len(names)):
        if candidate.name not in names:
            place.append(len(source))
            source.append(at)
            continue
        place.append(names.index(candidate.name))
        if not pool.known_M[place[-1]]:
            source[place[-1]] = at
    return pool.with_added(added).take(np.array(source, np.int64)), np.array(place, np.int64)
