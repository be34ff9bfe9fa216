"""This module makes a contestant of each method: something that was fitted, estimates and decides."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnout.core.artifact import save
from turnout.core.asking import Estimates, estimate_of, fit_router
from turnout.core.budget import Budget, Goal
from turnout.core.contracts import Configured, Embedder
from turnout.core.decision import Decisions
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.policies import Best, Deployment, feasible
from turnout.routers import BestSingleRouter, registry
from turnout.routers.members import with_embedder
from turnout.training.bench import llmrouter
from turnout.training.bench.budgets import BUDGETED
from turnout.training.bench.peers import PEERS, Predict, fit_peer
from turnout.training.bench.prepared import Prepared
from turnout.training.bench.told import READERS, is_told, plain, told
from turnout.training.learned import AUTO
from turnout.training.train import train

METHODS = (AUTO, told(AUTO), *registry, *map(told, READERS), *BUDGETED, *PEERS, *llmrouter.METHODS)
"""Everything that takes part; `told(name)` of any other registered router may be asked for besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A fitted method."""

    router: Estimates
    saved: Configured | None
    """What an artifact would hold; None for a peer, which has none."""
    deployment: Deployment | None = None
    """Of `auto`, which decides behind its guard."""
    fit_s: float | None = None
    """Seconds of training of a method that runs in another process; None where it runs in this one."""
    peak_mb: float | None = None
    """Likewise its memory, in MB."""

    @property
    def has_curve(self) -> bool:
        """Whether it predicts qualities, so that there is a choice for every price."""
        return not isinstance(self.router, Chooser)

    def decide(self, queries: Sequence[Query]) -> Decisions:
        """Return the choices for the best quality."""
        if self.deployment is not None:
            return self.deployment.decide(queries, goal=Goal())
        estimate = self.estimate(queries)
        return Best().decide(estimate, Budget(), make_rng(0, "bench"))

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the estimate under the masks of capability and context."""
        estimate = estimate_of(self.router, queries)
        return estimate.restrict(feasible(queries, estimate.candidates))

    def artifact_mb(self) -> float | None:
        """Return the size of what would be served, in MB."""
        if self.saved is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return sum(path.stat().st_size for path in Path(save(self.saved, folder)).iterdir()) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Another project's method behind the same embedder."""

    predict: Predict
    embedder: Embedder
    base: BestSingleRouter

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return predicted qualities with the candidates' mean costs; its spread is unknown."""
        known = self.base.estimate(queries)
        quality_QM = self.predict(np.asarray(self.embedder.embed(queries)))
        return make_estimate(
            known.candidates,
            np.where(np.isnan(known.quality_QM), np.nan, quality_QM),
            cost_usd_QM=known.cost_usd_QM,
            latency_s_QM=known.latency_s_QM,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Chooser:
    """Another project's method that names a candidate and predicts nothing."""

    worker: llmrouter.Worker
    embedder: Embedder
    base: BestSingleRouter

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return quality 1 for who is chosen and 0 for all others: a choice, written as an estimate."""
        known = self.base.estimate(queries)
        chosen_Q = self.worker.choose(np.asarray(self.embedder.embed(queries)))
        is_chosen_QM = np.arange(len(known.candidates)) == chosen_Q[:, None]
        return make_estimate(
            known.candidates,
            is_chosen_QM.astype(np.float64),
            cost_usd_QM=known.cost_usd_QM,
            latency_s_QM=known.latency_s_QM,
        )


def fit_contestant(name: str, given: Prepared, *, seed: int) -> Contestant:
    """Return the fitted method; raises `UnknownNameError` for a name that no registry knows."""
    if plain(name) == AUTO:
        deployment = train(given.train, Goal(), tasks_given=is_told(name), seed=seed)
        return Contestant(router=deployment.router, saved=deployment, deployment=deployment)
    if name in PEERS:
        x_NF = np.asarray(given.embedder.embed(given.train.queries))
        predict = fit_peer(name, x_NF, given.train.quality_QM, seed=seed)
        base = BestSingleRouter().fit(given.train)
        return Contestant(router=Peer(predict=predict, embedder=given.embedder, base=base), saved=None)
    if name in llmrouter.METHODS:
        x_NF = np.asarray(given.embedder.embed(given.train.queries))
        worker = llmrouter.Worker(name, given.train, x_NF)
        chooser = Chooser(worker=worker, embedder=given.embedder, base=BestSingleRouter().fit(given.train))
        return Contestant(router=chooser, saved=None, fit_s=worker.fit_s, peak_mb=worker.peak_mb)
    made = BUDGETED[name](given) if name in BUDGETED else registry.make(plain(name))
    router = fit_router(with_embedder(made, given.embedder), given.train)
    return Contestant(router=router, saved=router)
