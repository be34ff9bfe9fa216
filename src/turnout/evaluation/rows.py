"""This module writes the lines of a report: runs, baselines, single candidates and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.decision import NONE
from turnout.evaluation.arena import arena_score
from turnout.evaluation.calibration import calibration
from turnout.evaluation.curves import make_curve, saving_on
from turnout.evaluation.regret import oracle_share
from turnout.evaluation.report import Row, RunCalibration, Single, TaskTable
from turnout.evaluation.runs import BASELINES
from turnout.evaluation.scores import USD_PER_1K, look_up
from turnout.evaluation.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from turnout.core.outcomes import Floats, Ints
    from turnout.evaluation.judge import Judged
    from turnout.evaluation.runs import Choices

ORDER = ("best single", "best per group", "random", "oracle")
"""Baselines in the order in which the table shows them."""


def make_rows(judged: Judged, knn: str | None) -> tuple[Row, ...]:
    """Return the rows of the runs, then those of the baselines."""
    runs = {run.name: run for run in judged.runs}
    return tuple(_row(judged, name, runs.get(name), knn) for name in [*runs, *ORDER])


def make_singles(judged: Judged) -> tuple[Single, ...]:
    """Return every candidate by itself; without numbers where it was not observed on every query."""
    observed_M = judged.table.observed_QM.mean(axis=0)
    means, columns = judged.means, judged.columns.single
    return tuple(
        Single(
            name=name,
            quality=means.quality(columns[name]) if name in columns else Value(None),
            usd_per_1k=means.usd_per_1k(columns[name]) if name in columns else None,
            observed=float(share),
        )
        for name, share in zip(judged.table.names, observed_M, strict=True)
    )


def make_tasks(judged: Judged) -> TaskTable:
    """Return the mean quality, and cost, of every row within every task."""
    labels = [task or "(none)" for task in judged.table.tasks]
    tasks = sorted(set(labels))
    number_Q = np.array([tasks.index(label) for label in labels])
    count_T = np.bincount(number_Q, minlength=len(tasks))

    def by_task(values_QU: Floats, scale: float) -> Mapping[str, tuple[float, ...]]:
        table = {}
        for name, column in judged.columns.head.items():
            sums = np.bincount(number_Q, weights=values_QU[:, column], minlength=len(tasks))
            table[name] = tuple((scale * sums / count_T).tolist())
        return table

    cost_QU = judged.outcomes.cost_usd_QU
    return TaskTable(
        tasks=tuple(tasks),
        counts=tuple(count_T.tolist()),
        quality=by_task(judged.outcomes.quality_QU, 1.0),
        usd_per_1k=None if cost_QU is None else by_task(cost_QU, USD_PER_1K),
    )


def _row(judged: Judged, name: str, run: Choices | None, knn: str | None) -> Row:
    means, head = judged.means, judged.columns.head
    column, single, oracle = head[name], head["best single"], head["oracle"]
    choice_Q = _choices(judged, name)
    curve = None if run is None else make_curve(judged, run)
    # A router that stepped aside reaches the best single's quality at its point, if not on its sweep.
    slots = np.array([column]) if curve is None else np.append(judged.columns.sweep[name], column)
    share = oracle_share(
        means.quality_U[column], single=means.quality_U[single], oracle=means.quality_U[oracle]
    )
    share_B = oracle_share(
        means.quality_BU[:, column], single=means.quality_BU[:, single], oracle=means.quality_BU[:, oracle]
    )
    return Row(
        name=name,
        kind="baseline" if name in BASELINES else "run",
        note=_note(judged, name, run),
        quality=means.quality(column),
        usd_per_1k=means.usd_per_1k(column),
        # The oracle buys the best quality: what it would save at equal quality is another choice's.
        saving=None if name == "oracle" else saving_on(judged, slots),
        oracle_share=means.over(share, share_B),
        vs_best_single=means.difference(column, single),
        vs_knn=None if knn is None else means.difference(column, head[knn]),
        share=_share(judged, column),
        spend=_spend(judged, column),
        regret=means.difference(oracle, column),
        arena=_arena(judged, column),
        shares={} if choice_Q is None else _shares(choice_Q, judged.table.names),
        refused=0 if choice_Q is None else int((choice_Q == NONE).sum()),
        price=None if run is None else float(run.head.price),
        fingerprint="" if run is None else run.head.fingerprint,
        calibration=None if run is None else _calibration(judged, run),
        curve=curve,
    )


def _choices(judged: Judged, name: str) -> Ints | None:
    column = judged.columns.head[name]
    if column < judged.choice_QU.shape[1]:
        choice_Q: Ints = judged.choice_QU[:, column]
        return choice_Q
    return judged.oracle_Q if name == "oracle" else None


def _note(judged: Judged, name: str, run: Choices | None) -> str:
    if name == "best single":
        return judged.best_single
    if name == "random":
        return "expectation of a uniform choice"
    if name == "oracle":
        return "cheapest of the best per query, with hindsight"
    if name == "best per group":
        return f"{len(set(judged.best_per_group.values()))} models over {len(judged.best_per_group)} tasks"
    return "" if run is None or run.is_chosen else "lowest price of its sweep"


def _share(judged: Judged, column: int) -> Value:
    means, single = judged.means, judged.columns.head["best single"]
    if not means.quality_U[single] > 0:
        return Value(None)
    base_B = means.quality_BU[:, single]
    ratio_B = means.quality_BU[:, column] / np.where(base_B > 0, base_B, np.nan)
    return means.over(means.quality_U[column] / means.quality_U[single], ratio_B)


def _spend(judged: Judged, column: int) -> Value | None:
    means, single = judged.means, judged.columns.head["best single"]
    if means.cost_usd_U is None or means.cost_usd_BU is None or not means.cost_usd_U[single] > 0:
        return None
    base_B = means.cost_usd_BU[:, single]
    ratio_B = means.cost_usd_BU[:, column] / np.where(base_B > 0, base_B, np.nan)
    return means.over(means.cost_usd_U[column] / means.cost_usd_U[single], ratio_B)


def _arena(judged: Judged, column: int) -> Value | None:
    means = judged.means
    if means.cost_usd_U is None or means.cost_usd_BU is None:
        return None
    return means.over(
        arena_score(means.quality_U[column], USD_PER_1K * means.cost_usd_U[column]),
        arena_score(means.quality_BU[:, column], USD_PER_1K * means.cost_usd_BU[:, column]),
    )


def _shares(choice_Q: Ints, names: tuple[str, ...]) -> dict[str, float]:
    count_M = np.bincount(choice_Q[choice_Q != NONE], minlength=len(names))
    shares = {name: float(count) / choice_Q.size for name, count in zip(names, count_M, strict=True)}
    return {name: share for name, share in shares.items() if share > 0}


def _calibration(judged: Judged, run: Choices) -> RunCalibration | None:
    keep_Q, quality_QM = judged.coverage.keep_Q, judged.table.quality_QM
    got_Q = look_up(run.head_Q[keep_Q][:, None], quality_QM, None).quality_QU[:, 0]
    estimated_Q = np.where(run.head_Q == NONE, np.nan, run.head.quality_Q)[keep_Q]
    chosen = calibration(estimated_Q, got_Q)
    every = None
    if run.estimate is not None:
        columns = [judged.table.names.index(name) for name in run.estimate.names]
        every = calibration(run.estimate.quality_QM[keep_Q], quality_QM[:, columns])
    return None if chosen is None and every is None else RunCalibration(chosen=chosen, every=every)
