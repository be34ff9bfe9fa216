"""This module routes by the edges that a graph of tasks, queries and candidates is predicted to have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, cast, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.means import column_mean, means_of
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.graph_memory import RANGE, GraphMemory, memory_from
from turnout.routers.neural.scale import ScoreScale, fit_scale, scale_from
from turnout.routers.packing import below, under
from turnout.routers.targets import Targets

_MIN_TASK = 3
"""A task of fewer queries has no node."""


@final
class GraphRouter(Router):
    """Predict the edges (quality, cost) between a new query and the candidates of a graph of the past.

    Nodes are tasks, queries and candidates; an edge is a recorded outcome. A candidate's state is what two
    rounds of messages from the queries it answered make of it, and of nothing else: so a newcomer gets a
    state from its probe rows by the same weights. In training a share of the edges is masked and predicted
    from the states that the others make. The network is written out in `graph_net`.

    Source
    ------
    S37: T. Feng et al., "GraphRouter: A Graph-based Router for LLM Selections", arXiv 2410.03834 (abstract),
    and its code, github.com/ulab-uiuc/GraphRouter at f513909, model/graph_nn.py.

    Differs
    -------
    The code labels one best edge per query, the first of a tie; here every edge has its own graded quality,
    and its cost, as the abstract says. Candidates have no description to start from; tasks start as the mean
    of their queries in place of a text about them. The code normalises over all nodes at once, those of test
    queries among them, and writes down the result on the test set in every epoch (a copy in LLMRouterBench
    chooses the epoch by it); here a query depends on no other, and held-out rows of training choose. The
    bias of `sigmoid(mean(x * y))` at one half is gone: a query's state ends in a constant. A line per
    candidate, fitted on held-out rows, corrects what the network says (`scale`).

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    mask_share:
        Share of the edges that are predicted in a step of training, in (0, 1); the others send messages.
    seed:
        Of start, batches and masks.

    Units
    -----
    Spread is the standard error of the line from prediction to quality.

    Cost
    ----
    O(F D + M D) per query, with D = 32. Fitting: at most 1,500 steps over the edges of 512 queries.

    Raises
    ------
    MissingExtraError
        By `fit` and `add_candidate`, where torch is not installed.
    """

    def __init__(self, *, embedder: Embedder | None = None, mask_share: float = 0.5, seed: int = 0) -> None:
        if embedder is not None:
            check_kind("GraphRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.mask_share = check_number(
            "GraphRouter.mask_share", mask_share, low=0.0, high=1.0, allow_low=False, allow_high=False
        )
        self.seed = check_count("GraphRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.tasks_: dict[str, int] = {}
        self.net_: dict[str, np.ndarray] = {}
        self.memory_: GraphMemory | None = None
        self.quality_: ScoreScale | None = None
        self.cost_: ScoreScale | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether a graph was learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Train the network on masked edges, then let all edges make the states; returns self."""
        require_torch("GraphRouter.fit")
        from turnout.routers.neural.descent import arrays_of
        from turnout.routers.neural.graph_net import edges_of, learn, memory_of

        ground, lesson = learn_ground(table, self.embedder)
        self.tasks_ = _task_names(lesson.queries)
        task_N, memory = self._task(lesson.queries), _blank_memory(lesson)
        x_NF, cost_NM = lesson.x_NF / memory.unit, memory.standard(lesson.targets.cost_usd_QM)
        edges = edges_of(x_NF, task_N, lesson.targets.quality_QM, cost_NM)
        task_TF = [x_NF[task_N == at].mean(axis=0) for at in range(len(self.tasks_))]
        net, held_out = learn(
            edges, np.reshape(task_TF, (-1, x_NF.shape[1])), self.mask_share, make_rng(self.seed, "graph")
        )
        self.net_ = arrays_of(net)
        self.memory_ = memory_of(net, edges, memory)
        says_NM, dear_NM = self.memory_.predict(lesson.x_NF[held_out], task_N[held_out])
        self.quality_ = fit_scale(says_NM, lesson.targets.quality_QM[held_out], means_of(lesson.targets))
        self.cost_ = fit_scale(dear_NM, cost_NM[held_out], means_of(as_quality(cost_NM)))
        self.memory_ = _balanced(self.memory_, self.cost_, lesson, task_N)
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the predicted edges of queries and candidates."""
        ground, memory, quality, cost = self._learned("estimate")
        x_QF, task_Q = ground.embed(queries), self._task(queries)
        says_QM, dear_QM = memory.predict(x_QF, task_Q)
        # A query without text but of a known task is not blank.
        is_blank_Q = np.asarray(~x_QF.any(axis=1) & (task_Q < 0))
        standard_QM, _ = cost.apply(dear_QM, is_blank_Q, low=-RANGE, high=RANGE)
        says = quality.apply(says_QM, is_blank_Q)
        return ground.estimate(queries, *says, memory.ratio(standard_QM), x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Let the probe rows of one more candidate send it messages, by the weights as they are."""
        require_torch("GraphRouter.add_candidate")
        from turnout.routers.neural.graph_net import edges_of, memory_of, net_from

        ground, memory, quality, cost = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        task_N, added = self._task(lesson.queries), replace(_blank_memory(lesson), unit=memory.unit)
        cost_N1 = added.standard(lesson.targets.cost_usd_QM)
        edges = edges_of(lesson.x_NF / memory.unit, task_N, lesson.targets.quality_QM, cost_N1)
        added = memory_of(net_from(self.net_), edges, added)
        says_N1, dear_N1 = added.predict(lesson.x_NF, task_N)
        means = means_of(lesson.targets)
        self.quality_ = quality.with_added(quality.newcomer(says_N1, lesson.targets.quality_QM, means))
        usual = means_of(as_quality(cost_N1))
        self.memory_ = memory.with_added(
            _balanced(added, cost.newcomer(dear_N1, cost_N1, usual), lesson, task_N)
        )
        self.cost_ = cost.with_added(cost.newcomer(dear_N1, cost_N1, usual))
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the network, the states that it made, and the lines."""
        ground, memory, quality, cost = self._learned("state")
        arrays = {**under("net.", self.net_), **memory.arrays(), **quality.arrays()}
        arrays |= under("cost.", cost.arrays())
        return ground.state(self.embedder, arrays, {"tasks": list(self.tasks_)})

    def restore(self, state: State) -> None:
        """Take over the network, the states and the lines."""
        self.ground_ = ground_from(state, self.embedder)
        self.tasks_ = {str(name): at for at, name in enumerate(cast("list[str]", state.values["tasks"]))}
        self.net_ = below("net.", state.arrays)
        self.memory_ = memory_from(state.arrays)
        self.quality_ = scale_from(state.arrays)
        self.cost_ = scale_from(below("cost.", state.arrays))

    def _task(self, queries: Sequence[Query]) -> Ints:
        return np.array([self.tasks_.get(query.task or "", -1) for query in queries], np.int64)

    def _learned(self, move: str) -> tuple[Ground, GraphMemory, ScoreScale, ScoreScale]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.memory_ is not None
        assert self.quality_ is not None
        assert self.cost_ is not None
        return self.ground_, self.memory_, self.quality_, self.cost_


def as_quality(values_NM: Floats) -> Targets:
    """Return the values in the place of qualities, to be averaged like them."""
    nothing_NM = np.full_like(values_NM, np.nan)
    return Targets(values_NM, nothing_NM, nothing_NM)


def _task_names(queries: Sequence[Query]) -> dict[str, int]:
    counts = Counter(query.task for query in queries if query.task)
    return {name: at for at, name in enumerate(sorted(n for n, num in counts.items() if num >= _MIN_TASK))}


def _blank_memory(lesson: Lesson) -> GraphMemory:
    """Return the memory of a graph that has learned nothing but what is usual."""
    cost_NM = lesson.targets.cost_usd_QM
    costs = means_of(as_quality(cost_NM))
    length = float(np.linalg.norm(lesson.x_NF, axis=1).mean())
    none_MS = np.zeros((costs.quality.size, 0), np.float32)
    return GraphMemory(
        np.array([max(length, 1e-6)], np.float32),
        none_MS, none_MS, none_MS, none_MS,
        costs.quality,
        np.sqrt(column_mean((cost_NM - costs.quality) ** 2)),
    )  # fmt: skip


def _balanced(memory: GraphMemory, cost: ScoreScale, lesson: Lesson, task_N: Ints) -> GraphMemory:
    _, dear_NM = memory.predict(lesson.x_NF, task_N)
    standard_NM, _ = cost.apply(dear_NM, np.zeros(task_N.size, np.bool_), low=-RANGE, high=RANGE)
    usd_NM = lesson.targets_usd.cost_usd_QM
    return memory.balanced(usd_NM, lesson.charges.lines(lesson.queries), memory.ratio(standard_NM))
