"""This module turns a table and a goal into a deployment: fit, select, calibrate, guard, certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from turnout.core.budget import Goal
from turnout.core.contracts import Policy, Router
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.registry import find_registry
from turnout.core.validation import check_number
from turnout.evaluation import near_duplicates
from turnout.evaluation import split as split_table
from turnout.evaluation.baselines import best_single
from turnout.policies import Best, Deployment, Frontier, Guard, Pairs, measure_pairs, price_grid
from turnout.routers import BestSingleRouter
from turnout.training.replay import realised_sweep
from turnout.training.select import Trial, select_router
from turnout.training.sharing import remember_vectors, share_embedders

DEFAULT_ROUTERS = ("knn", "ridge")
"""What `train` selects from when no router is named; text alone, no task label."""


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


def train(
    table: OutcomeTable,
    goal: Goal | None = None,
    *,
    router: Router | str | Sequence[str] | Mapping[str, Router] = DEFAULT_ROUTERS,
    policy: Policy | None = None,
    shares: Shares | None = None,
    guard_confidence: float = 0.95,
    num_prices: int = 50,
    seed: int = 0,
    progress: Progress = silent,
) -> Deployment:
    """Return a deployment for `goal`, learned from `table` alone.

    Parameters
    ----------
    table:
        Training outcomes; keep the test part out of it.
    goal:
        The dial; None means the best quality.
    router:
        A router, a registry name, or several to select from by cross-validation on the fit share.
    policy:
        How estimates become decisions; None means `Best()`.
    shares:
        How the table is cut into fit, calibrate and guard.
    guard_confidence:
        Confidence of the guard's one-sided bound.
    num_prices:
        Prices on the calibrated frontier.
    seed:
        Seed of the cut, the folds and the policy's randomness.
    progress:
        Called with (phrase, done, total) as work goes on.

    Raises
    ------
    InputError
        If the goal speaks of money and no candidate has a known cost, or the table is too small to cut.
    """
    goal = Goal() if goal is None else goal
    policy = Best() if policy is None else policy
    _check_money(table, goal)
    progress("split", 0, 5)
    parts = split_table(table, asdict(shares or Shares()), seed=seed)
    progress("select", 1, 5)
    (name, chosen), trials = _select(router, parts["fit"], goal, policy, seed=seed, progress=progress)
    progress(f"fit {name}", 2, 5)
    learned, fallback = chosen.clone().fit(parts["fit"]), BestSingleRouter().fit(parts["fit"])
    prices = price_grid(learned.estimate(parts["calibrate"].queries), num=num_prices)
    progress("guard", 3, 5)
    measured = _options(learned, policy, parts["guard"], prices, seed=seed)
    progress("calibrate", 4, 5)
    best = table.names.index(best_single(table))
    deployment = Deployment(
        router=learned,
        fallback=fallback,
        policy=policy,
        goal=goal,
        frontier=_frontier(learned, fallback, policy, parts["calibrate"], prices, best=best, seed=seed),
        guard=Guard(options=measured, confidence=guard_confidence),
    )
    deployment.certificate = finite(_certificate(deployment, table, parts, name, trials, seed=seed))
    progress("done", 5, 5)
    return deployment


def _check_money(table: OutcomeTable, goal: Goal) -> None:
    if goal.dial is None or table.has_costs:
        return
    raise InputError(
        sentence(
            f"train: the goal of {goal.describe()} speaks of money, and the table records no cost",
            do="record cost_usd, or ask for the best quality",
        )
    )


def _select(
    router: Router | str | Sequence[str] | Mapping[str, Router],
    table: OutcomeTable,
    goal: Goal,
    policy: Policy,
    *,
    seed: int,
    progress: Progress,
) -> tuple[tuple[str, Router], tuple[Trial, ...]]:
    pool = share_embedders(_pool(router), table.queries)
    if len(pool) == 1:
        return next(iter(pool.items())), ()
    groups: list[object] = near_duplicates([query.words for query in table.queries], seed=seed).tolist()
    trial_pool = remember_vectors(pool, len(table.queries))
    name, trials = select_router(trial_pool, table, goal, policy, groups=groups, seed=seed, progress=progress)
    return (name, pool[name]), trials


def _pool(router: Router | str | Sequence[str] | Mapping[str, Router]) -> dict[str, Router]:
    if isinstance(router, Router):
        return {find_registry("routers").name_of(type(router)): router}
    if isinstance(router, Mapping):
        return dict(router)
    names = [router] if isinstance(router, str) else list(router)
    return {name: find_registry("routers").get(name)() for name in names}


def _options(router: Router, policy: Policy, table: OutcomeTable, prices: Floats, *, seed: int) -> Pairs:
    quality_PQ, usd_PQ = realised_sweep(router, policy, table, prices, seed=seed)
    return measure_pairs(quality_PQ, usd_PQ, table.quality_QM.T, table.cost_usd_QM.T)


def _frontier(
    router: Router,
    fallback: Router,
    policy: Policy,
    table: OutcomeTable,
    prices: Floats,
    *,
    best: int,
    seed: int,
) -> Frontier:
    singles = (table.quality_QM.T, table.cost_usd_QM.T)
    means = fallback.estimate(table.queries[:1])
    return Frontier(
        price_P=prices,
        options=_options(router, policy, table, prices, seed=seed),
        singles=measure_pairs(*singles, *singles),
        quality_M=means.quality_QM[0],
        usd_M=means.cost_usd_QM[0],
        best=best,
    )


def _certificate(
    deployment: Deployment,
    table: OutcomeTable,
    parts: Mapping[str, OutcomeTable],
    router: str,
    trials: tuple[Trial, ...],
    *,
    seed: int,
) -> dict[str, Any]:
    plan = deployment.plan()
    best = deployment.frontier.best if deployment.frontier is not None else 0
    return {
        "router": router,
        "goal": {key: value for key, value in asdict(deployment.goal).items() if value is not None},
        "seed": seed,
        "table": {
            "fingerprint": table.fingerprint,
            "queries": {name: len(part.queries) for name, part in parts.items()},
            "candidates": len(table.candidates),
        },
        "trials": [asdict(trial) for trial in trials],
        "best_single": table.names[best],
        "single_for_goal": None if plan.single is None else table.names[plan.single],
        "plan": asdict(plan),
    }


def finite(value: Any) -> Any:
    """Return JSON content with numbers that are not finite as None."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
