"""This module turns a table and a goal into a deployment: fit, select, calibrate, guard, certificate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from turnout.core.budget import Goal
from turnout.core.contracts import Embedder, Policy, Router
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.registry import find_registry
from turnout.core.validation import check_count, check_kind
from turnout.policies import Best, Deployment, Frontier, Guard, price_grid
from turnout.routers.targets import with_card_costs
from turnout.training.learned import AUTO, Learned, Shares, Wanted, Work, learn_automatically, learn_named
from turnout.training.memory import remembered
from turnout.training.pool import about_prices, learnable
from turnout.training.support import about_support

_OF_AUTO, _OF_NAMED = 0.8, 0.9
"""The guard's confidence where none is given."""


def train(
    table: OutcomeTable,
    goal: Goal | None = None,
    *,
    router: Wanted = AUTO,
    tasks_given: bool = False,
    embedder: Embedder | None = None,
    policy: Policy | None = None,
    shares: Shares | None = None,
    guard_confidence: float | None = None,
    is_guarded: bool = True,
    num_prices: int = 50,
    is_log: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Deployment:
    """Return a deployment for `goal`, learned from `table` alone.

    Parameters
    ----------
    table:
        Training outcomes; keep the test part out of it. A candidate of whom no answer was graded, or hardly
        any beside the others, is left out of the pool, with a note in the certificate.
    goal:
        The dial; None means the best quality.
    router:
        `auto` picks and combines routers on folds of the table and learns from all of it. Otherwise a
        router, a registry name, or several to select from by cross-validation on the fit share.
    tasks_given:
        Whether requests will come with their task, for `auto`: then it is believed, else it is inferred.
    embedder:
        Through which routers read that have none of their own; None is `TextEmbedder()`. Numbers in tags,
        such as the features of an image, reach them by `ColumnsEmbedder`.
    policy:
        How estimates become decisions; None means `Best()`.
    shares:
        How the table is cut into fit, calibrate and guard; for named routers only.
    guard_confidence:
        Confidence of the guard's one-sided bound; None is 0.8 for `auto` and 0.9 for a named router. A blend
        that opens it wrongly was shrunk toward the means and costs little; one that is kept out costs all
        that it would have gained.
    is_guarded:
        Whether the guard stands before the router; False where its choices are wanted whatever outcomes say,
        as routes that a user wrote.
    num_prices:
        Prices on the calibrated frontier.
    is_log:
        Whether the table is a log, of which a chance chose who answered (`turnout.training.log`): dial and
        guard are then measured by weighed rows. `retrain` prepares a ledger for it.
    seed:
        Seed of the cut, the folds and the policy's randomness.
    progress:
        Called with (phrase, done, total) as work goes on.

    Raises
    ------
    InputError
        If the goal speaks of money and no candidate has a known cost, the table holds no quality or is
        too small to cut, or an option is not what it should be or does not go with the router.
    """
    goal = Goal() if goal is None else goal
    policy = Best() if policy is None else policy
    _check_kinds(table, goal, policy, embedder, seed)
    given = table
    table, notes = learnable(with_card_costs(given))
    _check_money(table, goal)
    _check_options(router, tasks_given=tasks_given, shares=shares, is_log=is_log)
    work = Work(table=table, goal=goal, policy=policy, embedder=embedder, is_log=is_log, seed=seed)
    if router == AUTO:
        learned = learn_automatically(work, tasks_given=tasks_given, progress=progress)
    else:
        learned = learn_named(router, work, shares=shares or Shares(), progress=progress)
    progress("calibrate and guard", 4, 5)
    usual = _OF_AUTO if router == AUTO else _OF_NAMED
    confidence = usual if guard_confidence is None else guard_confidence
    deployment = _calibrated(learned, work, num_prices=num_prices, confidence=confidence)
    if not is_guarded:
        deployment.guard = None
    assert deployment.frontier is not None
    notes = (
        *notes,
        *about_support(table, learned.found),
        *about_prices(table.names, deployment.frontier.usd_M),
    )
    deployment.certificate = _certificate(deployment, learned, work, given.fingerprint, notes)
    progress("done", 5, 5)
    return deployment


def _calibrated(learned: Learned, work: Work, *, num_prices: int, confidence: float) -> Deployment:
    """Return the deployment, its frontier measured on what calibrates and its guard on what guards."""
    held, policy = learned.calibrate, work.policy
    prices = price_grid(held.estimate, num=num_prices)
    means = learned.fallback.estimate(work.table.queries[:1])
    best = int(means.quality_QM[0].argmax()) if held.is_log else learned.best
    support = None if learned.found is None else learned.found.support
    deployment = Deployment(
        router=learned.router,
        fallback=learned.fallback,
        policy=policy,
        goal=work.goal,
        frontier=Frontier(
            price_P=prices,
            options=held.options(policy, prices, seed=work.seed),
            singles=held.singles(best),
            # Where one is not offered it gives nothing.
            quality_M=means.quality_QM[0] * (1.0 if support is None else support.share_M),
            usd_M=means.cost_usd_QM[0],
            best=best,
        ),
        guard=Guard(options=learned.guard.options(policy, prices, seed=work.seed), confidence=confidence),
    )
    deployment.support = support
    deployment.learned_from = remembered(work.table.queries)
    return deployment


def _check_kinds(table: object, goal: object, policy: object, embedder: object, seed: object) -> None:
    check_kind("train: table", table, OutcomeTable, do="read it with turnout.load_table(name or path)")
    check_kind("train: goal", goal, Goal, do="write for example Goal(quality_floor=0.95)")
    check_kind("train: policy", policy, Policy, do="write for example Best()")
    if embedder is not None:
        check_kind("train: embedder", embedder, Embedder, do="write for example TextEmbedder()")
    check_count("train: seed", seed, low=0)


def _check_money(table: OutcomeTable, goal: Goal) -> None:
    if goal.dial is None or table.has_costs:
        return
    raise InputError(
        sentence(
            f"train: the goal of {goal.describe()} speaks of money, and the table records no cost",
            do="record cost_usd, or tokens and the prices in models.parquet; or ask for the best quality",
        )
    )


def _check_options(router: Wanted, *, tasks_given: bool, shares: Shares | None, is_log: bool) -> None:
    if is_log and not isinstance(router, str | Router):
        raise InputError(
            sentence(
                "train: a log cannot select among named routers",
                allowed="'auto' or one router",
                do="name one, or compare their deployments in a shadow",
            )
        )
    if router == AUTO:
        find_registry("routers").require_one_meaning(AUTO)
    if tasks_given and router != AUTO:
        raise InputError(
            sentence(
                "train: tasks_given goes with the router 'auto' alone",
                do="leave it out; group_mean and inferred_group read the task by themselves",
            )
        )
    if shares is not None and router == AUTO:
        raise InputError(
            sentence(
                "train: shares do not go with the router 'auto', which judges on folds of the whole table",
                do="leave them out, or name a router",
            )
        )


def _certificate(
    deployment: Deployment, learned: Learned, work: Work, fingerprint: str, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Return what was done and measured; a table is known by its name whoever of it could be learned."""
    plan, table = deployment.plan(), work.table
    best = deployment.frontier.best if deployment.frontier is not None else 0
    queries = {
        "fit": learned.num_fit,
        "calibrate": len(learned.calibrate.table.queries),
        "guard": len(learned.guard.table.queries),
    }
    about: dict[str, Any] = finite(
        {
            "router": learned.name,
            "goal": {key: value for key, value in asdict(deployment.goal).items() if value is not None},
            "seed": work.seed,
            "table": {"fingerprint": fingerprint, "queries": queries, "candidates": len(table.candidates)},
            "trials": [asdict(trial) for trial in learned.trials],
            **({"auto": learned.about} if learned.about else {}),
            "best_single": table.names[best],
            "single_for_goal": None if plan.single is None else table.names[plan.single],
            "plan": asdict(plan),
            **({"notes": notes} if notes else {}),
        }
    )
    return about


def finite(value: Any) -> Any:
    """Return JSON content with numbers that are not finite as None."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
