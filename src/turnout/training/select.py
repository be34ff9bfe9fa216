"""This module selects a router by cross-validation on the fit split, for the goal at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from turnout.core.asking import estimate_of, fit_router
from turnout.core.budget import Goal
from turnout.core.contracts import Policy, Router
from turnout.core.errors import InputError, TableError, sentence
from turnout.core.outcomes import Floats, OutcomeTable, split_groups
from turnout.core.progress import Progress, silent
from turnout.core.scoring import LEAST_PRICE
from turnout.policies import price_grid
from turnout.routers import BestSingleRouter
from turnout.training.replay import realised_sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What one router reached in cross-validation; larger `merit` is better."""

    name: str
    merit: tuple[float, float]
    """First whether and how far the goal was met, then what is left to optimise."""
    quality: float
    usd_per_1k: float


def select_router(
    routers: Mapping[str, Router],
    table: OutcomeTable,
    goal: Goal,
    policy: Policy,
    *,
    groups: list[object],
    num_folds: int = 3,
    seed: int,
    progress: Progress = silent,
) -> tuple[str, tuple[Trial, ...]]:
    """Return the name of the best router for `goal` and every trial.

    Folds keep `groups` together. Each router is fitted without a fold and swept on it; the pooled
    outcomes at each price give its frontier, and `merit` reads the goal off that frontier.
    """
    if not routers:
        raise InputError(sentence("select_router: routers", allowed="at least one", got="none"))
    shares = {str(fold): 1.0 / num_folds for fold in range(num_folds)}
    fold_Q = np.array(split_groups(groups, shares, seed=seed))
    trials = []
    for step, (name, router) in enumerate(routers.items()):
        progress(f"select: {name}", step, len(routers))
        least = LEAST_PRICE if goal.asks_for_money else 0.0
        quality_PQ, usd_PQ, prices = _cross_validate(router, table, policy, fold_Q, least=least, seed=seed)
        trials.append(_trial(name, quality_PQ, usd_PQ, prices, goal, _best_quality(table)))
    best = max(trials, key=lambda trial: trial.merit)
    return best.name, tuple(trials)


def _cross_validate(
    router: Router, table: OutcomeTable, policy: Policy, fold_Q: np.ndarray, *, least: float, seed: int
) -> tuple[Floats, Floats, Floats]:
    folds = [np.array(fold_Q == fold) for fold in np.unique(fold_Q)]
    if len(folds) < 2:
        raise InputError(
            sentence(
                "select_router: the fit split has fewer than 2 groups of queries",
                do="give more queries, or name one router instead of several",
            )
        )
    prices = price_grid(BestSingleRouter().fit(table).estimate(table.queries), num=24)
    learned = [(fit_router(router.clone(), table.where(~fold)), table.where(fold)) for fold in folds]
    grids = [price_grid(estimate_of(model, part.queries), num=24) for model, part in learned]
    # One grid for all folds: prices have the same meaning in each.
    prices = np.unique(np.maximum(np.concatenate([prices, *grids]), least))
    prices = prices[np.unique(np.linspace(0, prices.size - 1, 48).astype(int))]
    runs = [realised_sweep(model, policy, part, prices, seed=seed) for model, part in learned]
    return (
        np.concatenate([quality_PQ for quality_PQ, _ in runs], axis=1),
        np.concatenate([usd_PQ for _, usd_PQ in runs], axis=1),
        prices,
    )


def _trial(
    name: str, quality_PQ: Floats, usd_PQ: Floats, prices: Floats, goal: Goal, best_quality: float
) -> Trial:
    quality_P, usd_P = _mean(quality_PQ), _mean(usd_PQ)
    merits = [
        merit(float(q), float(usd), goal, best_quality, price=float(p))
        for q, usd, p in zip(quality_P, usd_P, prices, strict=True)
    ]
    best = max(range(len(merits)), key=lambda index: merits[index])
    return Trial(
        name=name,
        merit=merits[best],
        quality=float(quality_P[best]),
        usd_per_1k=float(usd_P[best]) * 1000.0,
    )


def merit(
    quality: float, usd: float, goal: Goal, best_quality: float, *, price: float
) -> tuple[float, float]:
    """Return how well a point serves a goal; tuples compare from the left, larger is better.

    A quality floor: first the shortfall (0 when met), then cheapness. A spend cap: first the excess (0
    when met), then quality. A price: quality minus price times usd, at that price only.
    """
    if goal.quality_floor is not None:
        return min(0.0, quality - goal.quality_floor * best_quality), -usd if np.isfinite(usd) else -np.inf
    if goal.usd_per_1k is not None:
        return min(0.0, goal.usd_per_1k / 1000.0 - usd), quality
    wanted = goal.fixed_price or 0.0
    if wanted == 0.0:
        return (quality, 0.0) if price == 0.0 else (-np.inf, 0.0)
    return quality - wanted * usd, 0.0


def _best_quality(table: OutcomeTable) -> float:
    mean_M = _mean(table.quality_QM.T)
    if not np.isfinite(mean_M).any():
        raise TableError(sentence("the fit split holds no quality", do="grade some answers first"))
    return float(np.nanmax(mean_M))


def _mean(values_PQ: Floats) -> Floats:
    known_PQ = np.isfinite(values_PQ)
    total_P = np.where(known_PQ, values_PQ, 0.0).sum(axis=1)
    mean_P = np.full(total_P.size, np.nan)
    np.divide(total_P, known_PQ.sum(axis=1), out=mean_P, where=known_PQ.any(axis=1))
    return mean_P
