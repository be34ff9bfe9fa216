"""This module learns a router and sets aside what judges it: named routers on a cut, `auto` on folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from turnout.core.asking import estimate_of, fit_router
from turnout.core.budget import Goal
from turnout.core.contracts import Embedder, Policy, Router
from turnout.core.errors import InputError, TableError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, OutcomeTable
from turnout.core.progress import Progress
from turnout.core.registry import find_registry
from turnout.core.validation import check_number
from turnout.evaluation import near_duplicates
from turnout.evaluation import split as split_table
from turnout.evaluation.baselines import best_single
from turnout.routers import BestSingleRouter
from turnout.routers.members import with_embedder
from turnout.training.auto import learn_auto
from turnout.training.judged import Judged, judge, singles_of_folds
from turnout.training.log import by_chance, completed, means_of
from turnout.training.select import Trial, select_router
from turnout.training.sharing import remember_vectors, share_embedders
from turnout.training.support import Found, find_support, wide

AUTO = "auto"
"""The name under which `train` picks and combines routers by itself."""
CALIBRATE_FOLDS = (0, 1, 2)
"""Folds of `auto` that calibrate the dial; the others guard. A promise of quality needs the most queries."""

Wanted = Router | str | Sequence[str] | Mapping[str, Router]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How the training table is cut; same and near-same texts stay in one part."""

    fit: float = 0.6
    """Share on which the router is selected and learns."""
    calibrate: float = 0.2
    """Share on which the dial is calibrated."""
    guard: float = 0.2
    """Share on which the guard compares the router with the best single model."""

    def __post_init__(self) -> None:
        for name in ("fit", "calibrate", "guard"):
            check_number(f"Shares.{name}", getattr(self, name), low=0.0, high=1.0, allow_low=False)
        total = self.fit + self.calibrate + self.guard
        if abs(total - 1.0) > 1e-9:
            raise InputError(sentence("Shares", allowed="three numbers that sum to 1", got=round(total, 12)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """A fitted router and the queries that were set aside to calibrate and to guard it."""

    name: str
    router: Router
    fallback: Router
    calibrate: Judged
    guard: Judged
    num_fit: int
    """Queries that the router learned from."""
    best: int
    """The best single model of those that may serve all queries."""
    found: Found | None = None
    """Where candidates may be chosen; None for everywhere."""
    trials: tuple[Trial, ...] = ()
    about: dict[str, object] = field(default_factory=dict)
    """What `auto` says about its members."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be learned, and how."""

    table: OutcomeTable
    goal: Goal
    policy: Policy
    embedder: Embedder | None
    """Of routers that have none of their own; None is theirs to choose."""
    is_log: bool
    seed: int


def learn_automatically(work: Work, *, tasks_given: bool, progress: Progress) -> Learned:
    """Let `auto` pick and combine; every query is judged by what was learned without it."""
    table = work.table
    found = learn_auto(
        table, tasks_given=tasks_given, embedder=work.embedder, seed=work.seed, progress=progress
    )
    where = (
        None
        if work.is_log
        else find_support(table, found.router.embedder_, found.x_QF, reads_tasks=tasks_given)
    )
    best = _best(table, where)
    is_calibrate_Q: Bools = np.asarray(np.isin(found.fold_Q, CALIBRATE_FOLDS))
    if work.is_log:
        calibrate, guard = (
            _judged_log(table.where(rows_Q), found.estimate.rows(rows_Q))
            for rows_Q in (is_calibrate_Q, ~is_calibrate_Q)
        )
    else:
        single_Q = singles_of_folds(table, wide(table, where), found.fold_Q)
        allowed_QM = None if where is None else where.allowed_QM
        every = judge(table, found.estimate, single_Q, best, x_QF=found.x_QF, allowed_QM=allowed_QM)
        calibrate, guard = every.rows(is_calibrate_Q), every.rows(~is_calibrate_Q)
    return Learned(
        name=AUTO,
        router=found.router,
        fallback=_fallback(table, calibrate, guard),
        calibrate=calibrate,
        guard=guard,
        num_fit=len(table.queries),
        best=best,
        found=where,
        about=found.about,
    )


def learn_named(router: Wanted, work: Work, *, shares: Shares, progress: Progress) -> Learned:
    """Cut the table, select among the named routers, and fit the one on the fit share."""
    progress("split", 0, 5)
    parts = split_table(work.table, asdict(shares), seed=work.seed)
    progress("select", 1, 5)
    (name, chosen), trials = _select(router, parts["fit"], work, progress)
    progress(f"fit {name}", 2, 5)
    learned = fit_router(chosen.clone(), parts["fit"])
    progress("estimate", 3, 5)
    where = None if work.is_log else find_support(work.table, _reads(learned, work), reads_tasks=True)
    best, single = _best(work.table, where), _best(parts["fit"], where)
    calibrate, guard = (
        _judged_log(part, estimate_of(learned, part.queries))
        if work.is_log
        else judge(
            part,
            estimate_of(learned, part.queries),
            np.full(len(part.queries), single),
            best,
            allowed_QM=None if where is None else where.of(work.table, part),
        )
        for part in (parts["calibrate"], parts["guard"])
    )
    return Learned(
        name=name,
        router=learned,
        fallback=_fallback(parts["fit"], calibrate, guard),
        num_fit=len(parts["fit"].queries),
        best=best,
        found=where,
        calibrate=calibrate,
        guard=guard,
        trials=trials,
    )


def _judged_log(table: OutcomeTable, estimate: Estimate) -> Judged:
    """Return the queries of a log to judge on, those that a chance answered."""
    chance_Q = by_chance(table)
    if not chance_Q.any():
        what = "a part of the log holds no scored answer by chance"
        raise TableError(sentence(what, do="collect more feedback, or choose another --seed"))
    table, estimate = table.where(chance_Q), estimate.rows(chance_Q)
    quality_QM, cost_usd_QM = completed(table, estimate)
    return Judged(
        table=table,
        estimate=estimate,
        quality_QM=quality_QM,
        cost_usd_QM=cost_usd_QM,
        rival_QM=quality_QM,
        reach_QM=np.ones(quality_QM.shape),
        is_log=True,
    )


def _best(table: OutcomeTable, found: Found | None) -> int:
    return table.names.index(best_single(wide(table, found), min_coverage=0.0))


def _reads(router: Router, work: Work) -> Embedder | None:
    """Return what a fitted router reads texts through, None where it reads none."""
    own = getattr(router, "embedder_", None)
    return own if isinstance(own, Embedder) else work.embedder


def _fallback(table: OutcomeTable, calibrate: Judged, guard: Judged) -> Router:
    """Return the candidates' means; of a log those of its completion, for its choices are no fair sample."""
    if not calibrate.is_log:
        return BestSingleRouter().fit(table)
    quality_QM = np.concatenate([calibrate.quality_QM, guard.quality_QM])
    cost_usd_QM = np.concatenate([calibrate.cost_usd_QM, guard.cost_usd_QM])
    return BestSingleRouter().fit(means_of((quality_QM, cost_usd_QM), calibrate.table))


def _select(
    router: Wanted, table: OutcomeTable, work: Work, progress: Progress
) -> tuple[tuple[str, Router], tuple[Trial, ...]]:
    given = {name: with_embedder(one, work.embedder) for name, one in _pool(router).items()}
    pool = share_embedders(given, table.queries)
    if len(pool) == 1:
        return next(iter(pool.items())), ()
    seed = work.seed
    groups: list[object] = near_duplicates([query.content for query in table.queries], seed=seed).tolist()
    trial_pool = remember_vectors(pool, len(table.queries))
    name, trials = select_router(
        trial_pool, table, work.goal, work.policy, groups=groups, seed=seed, progress=progress
    )
    return (name, pool[name]), trials


def _pool(router: Wanted) -> dict[str, Router]:
    if isinstance(router, Router):
        return {find_registry("routers").name_of(type(router)): router}
    if isinstance(router, Mapping):
        return dict(router)
    names = [router] if isinstance(router, str) else list(router)
    return {name: find_registry("routers").make(name) for name in names}
