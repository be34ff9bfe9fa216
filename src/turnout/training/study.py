"""This module studies a deployment on held-out queries, next to every baseline that keeps it honest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from turnout.core.asking import estimate_of
from turnout.core.contracts import Embedder, Policy, Router
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.rng import make_rng
from turnout.evaluation import Cells, Report, Run, evaluate
from turnout.evaluation import split as split_table
from turnout.evaluation.coverage import MAX_DROPPED
from turnout.features import TextEmbedder
from turnout.policies import Deployment, feasible, price_grid, sweep
from turnout.routers import GroupMeanRouter, KNNRouter, RidgeRouter
from turnout.routers.members import with_embedder
from turnout.training.memory import check_unseen
from turnout.training.missing import cells_of
from turnout.training.promise import about_promise
from turnout.training.sharing import share_embedders

_FILLER = "(cells)"
HELD_OUT = 0.3
"""Share of the queries that is held out where a table fixes no split of its own."""


def train_and_test(
    table: OutcomeTable,
    *,
    train: str | None = None,
    test: str | None = None,
    resplit: bool = False,
    seed: int = 0,
) -> tuple[OutcomeTable, OutcomeTable]:
    """Return the training and the held-out part of a table.

    Named splits are taken as they are, as are `train` and `test` where the table has both. Otherwise the
    table is cut 70/30 by the splitter that keeps near-same texts together, in the same way for a seed;
    `resplit` does so whatever splits the table has, which is the cure for a split that leaks.

    Raises `InputError` where one split is named as both parts (nothing would be held out), and where a table
    has a split `test` and none `train`: its held-out rows must not be learned from unasked.
    """
    if resplit:
        table = table.with_splits([None] * len(table.queries))
    names = {name for name in table.splits if name is not None}
    if train is not None or test is not None or {"train", "test"} <= names:
        train, test = train or "train", test or "test"
        if train == test:
            raise InputError(
                sentence(
                    "one split is named as the training and as the held-out part",
                    allowed="two different splits",
                    got=train,
                    do="name another for one of them; what was learned from proves nothing",
                )
            )
        return table.select(split=train), table.select(split=test)
    if "test" in names:
        raise InputError(
            sentence(
                "the table has a split 'test' and none that is called 'train'",
                allowed="both of them, or neither",
                got=", ".join(sorted(names)),
                do="name the training split (--train-split), or let the whole table be cut anew (--resplit)",
            )
        )
    parts = split_table(table, {"train": 1.0 - HELD_OUT, "test": HELD_OUT}, seed=seed)
    return parts["train"], parts["test"]


def unused_splits(
    table: OutcomeTable, *, train: str | None = None, test: str | None = None, resplit: bool = False
) -> str | None:
    """Return a sentence about splits of a table that `train_and_test` passes over, None where there are none.

    These are rows that neither part holds, or names that are ignored because the table is cut anew.
    """
    if resplit:
        return None
    names = {name for name in table.splits if name is not None}
    if train is None and test is None and "train" in names and "test" not in names:
        return "the table has a split 'train' and none called 'test': the whole table is cut 70/30"
    others = sorted(names - {train or "train", test or "test"})
    if not others:
        return None
    shown = ", ".join(repr(name) for name in others)
    if train is not None or test is not None or {"train", "test"} <= names:
        return f"rows of the split {shown} are not used"
    return f"the table's own split {shown} is not known and ignored: the whole table is cut 70/30"


def study(
    deployment: Deployment,
    train: OutcomeTable,
    test: OutcomeTable,
    *,
    others: Mapping[str, Router] | None = None,
    num_prices: int = 50,
    num_resamples: int = 1000,
    seed: int = 0,
    leakage: Literal["check", "allow", "skip"] = "check",
) -> Report:
    """Return the report of a deployment on `test`.

    The run called `router` is the deployment at its goal, with the guard on; its curve is the router's
    own, without the guard, so that the picture shows what the guard judged. The run called `knn` is a
    kNN with its defaults fitted on all of `train`, at the same goal's price, and reads what the deployment
    reads; where tasks are known,
    `group mean` is each task's means likewise; `others` are further unfitted routers.

    Where more than `MAX_DROPPED` of the queries lack the outcome of some candidate, what was observed
    counts all the same: a doubly robust value stands in for every other cell (`turnout.training.missing`),
    by ridge regression on `train`, and the report says how many cells those are.
    """
    seen = check_unseen(deployment, test, leakage=leakage)
    price = deployment.plan().price
    runs = {"router": _deployed(deployment, test, num_prices, seed)}
    baselines: dict[str, Router] = {"knn": KNNRouter()}
    if any(task is not None for task in train.tasks):
        baselines["group mean"] = GroupMeanRouter()
    wanted = {**baselines, **(others or {}), _FILLER: RidgeRouter()}
    reads = _reads(deployment.router)
    pool = share_embedders({name: with_embedder(one, reads) for name, one in wanted.items()}, train.queries)
    filler = pool.pop(_FILLER)
    for name, router in pool.items():
        runs[name] = _fitted(router.clone().fit(train), deployment.policy, test, price, num_prices, seed)
    report = evaluate(
        runs,
        test,
        train=train,
        seed=seed,
        num_resamples=num_resamples,
        knn="knn",
        leakage=leakage,
        cells=_cells(filler, train, test),
    )
    said = (*([] if seen is None else [seen]), *about_promise(deployment, report, train, test))
    return replace(report, warnings=(*said, *report.warnings))


def _reads(router: Router) -> Embedder | None:
    """Return an unfitted copy of what a router reads through, None for text: baselines shall know as much."""
    embedder = router.config().get("embedder")
    return (
        embedder.clone()
        if isinstance(embedder, Embedder) and not isinstance(embedder, TextEmbedder)
        else None
    )


def _cells(filler: Router, train: OutcomeTable, test: OutcomeTable) -> Cells | None:
    """Return what the held-out cells count as; None where next to all queries were observed for everybody."""
    observed_QM = test.observed_QM[:, test.observed_QM.any(axis=0)]
    is_known = set(test.names) <= set(train.names)
    if not is_known or observed_QM.all(axis=1).mean() >= 1.0 - MAX_DROPPED:
        return None
    estimate = filler.clone().fit(train).estimate(test.queries).reorder(test.names)
    embedder = filler.config()["embedder"]
    assert isinstance(embedder, Embedder)
    return cells_of(test, estimate, np.asarray(embedder.embed(test.queries)))


def _deployed(deployment: Deployment, test: OutcomeTable, num_prices: int, seed: int) -> Run:
    estimate = _masked(deployment.router, test)
    if deployment.support is not None:
        estimate = estimate.restrict(deployment.support.allowed(test.queries, len(estimate.candidates)))
    runs = sweep(deployment.policy, estimate, _prices(estimate, num_prices), rng=make_rng(seed, "study"))
    return Run(chosen=deployment.decide(test.queries), sweep=runs, estimate=estimate)


def _fitted(
    router: Router, policy: Policy, test: OutcomeTable, price: float, num_prices: int, seed: int
) -> Run:
    estimate, rng = _masked(router, test), make_rng(seed, "study")
    chosen = sweep(policy, estimate, [price], rng=rng)[0]
    return Run(
        chosen=chosen,
        sweep=sweep(policy, estimate, _prices(estimate, num_prices), rng=rng),
        estimate=estimate,
    )


def _masked(router: Router, test: OutcomeTable) -> Estimate:
    estimate = estimate_of(router, test.queries)
    return estimate.restrict(feasible(test.queries, estimate.candidates))


def _prices(estimate: Estimate, num_prices: int) -> Floats:
    return price_grid(estimate, num=num_prices)
