"""This module lets composition take part under a budget: of money, and of the memory that its experts share.

A budget is a number that a user has. Here it is read off the training part, so that it means the same on
every table: half of what the best single model costs, or half of the parameters that the experts of the free
map have together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnout.core.contracts import Router
from turnout.core.errors import InputError, sentence
from turnout.evaluation.baselines import best_single
from turnout.routers import BestSingleRouter, CompositionRouter
from turnout.training.bench.prepared import Prepared

SHARE = 0.5


def _half_the_money(given: Prepared) -> Router:
    column = given.train.names.index(best_single(given.train))
    cost_usd_QM = BestSingleRouter().fit(given.train).estimate(given.train.queries).cost_usd_QM
    half = SHARE * float(np.nan_to_num(cost_usd_QM[:, column]).mean())
    router = CompositionRouter(embedder=given.embedder, budget_usd=half)
    try:
        router.clone().fit(given.train)
    except InputError as error:
        if not half:  # without costs that is what is wrong, and the error says so
            raise
        what = "no map of categories to experts fits half of what the best single model costs on this table"
        raise InputError(sentence(what, got=f"{half:.3g} usd a query")) from error
    return router


def _half_the_parameters(given: Prepared) -> Router:
    experts = set(CompositionRouter(embedder=given.embedder).fit(given.train).map().values())
    sizes = [c.descriptors.get("params_b", 0.0) for c in given.train.candidates if c.name in experts]
    held = sum(float(size) for size in sizes if isinstance(size, int | float))
    return CompositionRouter(embedder=given.embedder, budget_params_b=SHARE * held)


BUDGETED: dict[str, Callable[[Prepared], Router]] = {
    "composition_half_usd": _half_the_money,
    "composition_half_params": _half_the_parameters,
}
"""Name -> what makes the router for a cut table, not fitted."""
