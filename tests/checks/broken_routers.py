"""This module holds a router that keeps every promise, and ways to break each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Router, State
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_number


def mean_M(values_QM: np.ndarray, *, default: float = np.nan) -> np.ndarray:
    """Return the mean of each column over its known cells, `default` where there is none."""
    known_QM = ~np.isnan(values_QM)
    total_M = np.where(known_QM, values_QM, 0.0).sum(axis=0)
    mean = np.full(total_M.shape, default)
    np.divide(total_M, known_QM.sum(axis=0), out=mean, where=known_QM.any(axis=0))
    return mean


class MeanRouter(Router):
    """Estimate every query by each candidate's means; `shift` pulls quality towards one half."""

    def __init__(self, *, shift: float = 0.0) -> None:
        self.shift = check_number("MeanRouter.shift", shift, low=0.0, high=1.0)
        self.pool: tuple[Candidate, ...] = ()
        self.mean_KM: np.ndarray | None = None

    @property
    def is_fitted(self) -> bool:
        return self.mean_KM is not None

    def fit(self, table: OutcomeTable) -> Self:
        self.pool = table.candidates
        views = (table.quality_QM, table.cost_usd_QM, table.latency_s_QM)
        self.mean_KM = np.stack([mean_M(view) for view in views])
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        self.require_fitted("estimate")
        assert self.mean_KM is not None
        rows = [np.repeat(row[None, :], len(queries), axis=0) for row in self.mean_KM]
        quality_QM = rows[0] * (1 - self.shift) + 0.5 * self.shift
        spread_QM = np.where(np.isnan(quality_QM), np.nan, 0.1)
        quality_QM = np.where(np.isnan(quality_QM), 0.5, quality_QM)
        return make_estimate(
            self.pool, quality_QM, spread_QM=spread_QM, cost_usd_QM=rows[1], latency_s_QM=rows[2]
        )

    def state(self) -> State:
        self.require_fitted("state")
        values = {"pool": [candidate.to_dict() for candidate in self.pool]}
        return State(arrays={"mean_KM": np.asarray(self.mean_KM)}, values=values)

    def restore(self, state: State) -> None:
        from turnout.core.candidate import candidate_from_dict

        self.pool = tuple(candidate_from_dict(item) for item in state.values["pool"])  # type: ignore[attr-defined]
        self.mean_KM = np.array(state.arrays["mean_KM"])


def broken(**methods: Any) -> MeanRouter:
    """Return a router of a class that overrides methods of `MeanRouter`."""
    return type("Broken", (MeanRouter,), methods)()


def changing(change: Callable[[Any, Sequence[Query], dict[str, np.ndarray]], None]) -> MeanRouter:
    """Return a router whose estimate is changed in place: `change(self, queries, arrays)`."""

    def estimate(self: MeanRouter, queries: Sequence[Query]) -> Estimate:
        made = MeanRouter.estimate(self, queries)
        names = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM")
        arrays = {name: getattr(made, name).copy() for name in names}
        change(self, queries, arrays)
        return Estimate(candidates=made.candidates, allowed_QM=made.allowed_QM, **arrays)

    return broken(estimate=estimate)


def fitting(change: Callable[[Any, OutcomeTable], None]) -> MeanRouter:
    """Return a router that does something more at the end of `fit`: `change(self, table)`."""

    def fit(self: MeanRouter, table: OutcomeTable) -> MeanRouter:
        MeanRouter.fit(self, table)
        change(self, table)
        return self

    return broken(fit=fit)


def zero_filled(view: str, row: int) -> MeanRouter:
    """Return a router that takes unknown cells of a dense view for 0."""

    def change(self: Any, table: OutcomeTable) -> None:
        self.mean_KM[row] = np.nan_to_num(getattr(table, view)).mean(axis=0)

    return fitting(change)
