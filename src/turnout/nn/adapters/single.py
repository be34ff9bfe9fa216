"""This module gives all weight to one adapter, and finds the one that is best on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_name
from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear, ones

if TYPE_CHECKING:
    from turnout.nn.adapters.pool import AdapterPool


class SingleAdapter(AdapterRouter):
    """out = W u + s B A u of the adapter called `name`, for every token: what PEFT computes."""

    def __init__(self, *, name: str) -> None:
        check_name("SingleAdapter: name", name)
        self.name = name

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return (..., E): 1 for the adapter; raises `UnknownNameError` if the pool lacks it."""
        return ones(len(context.names), [context.index(self.name)], u)

    def active(self, context: Context) -> tuple[int, ...]:
        """Return the place of the adapter."""
        return (context.index(self.name),)


def best_single(pool: AdapterPool, score: Callable[[], float]) -> SingleAdapter:
    """Return the adapter with which `score()` is largest; the first of equals.

    `score` runs the model on data that nothing is reported on, such as a training split. Raises `InputError`
    for an empty pool and for a score that is NaN.
    """
    if not pool.names:
        raise InputError(sentence("best_single: adapters of the pool", allowed="at least one", got="none"))
    scores = {}
    for name in pool.names:
        with pool.only(name):
            scores[name] = float(score())
        if math.isnan(scores[name]):
            raise InputError(
                sentence(f"best_single: score of {name!r}", allowed="a number", got=scores[name])
            )
    return SingleAdapter(name=max(pool.names, key=scores.__getitem__))
