"""This module measures one method on one table, in a process of its own.

Times are seconds of the processor: cells of one table may be run days apart, beside anything.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.budget import Goal
from turnout.core.decision import Decisions
from turnout.core.errors import TurnoutError
from turnout.core.estimate import Estimate
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.scoring import LEAST_PRICE
from turnout.evaluation import Run, evaluate
from turnout.evaluation.report import Row
from turnout.evaluation.saving import Saving
from turnout.evaluation.value import Value
from turnout.policies import Best, price_grid, sweep
from turnout.training.bench.contestants import Contestant, fit_contestant
from turnout.training.bench.prepared import Prepared, read_prepared
from turnout.training.bench.rewording import flips, read_pairs
from turnout.training.bench.told import asked, is_told
from turnout.training.train import finite

_LOG = logging.getLogger(__name__)
NUM_TIMED = 200
NUM_RESAMPLES = 1_000
DIALS = (0.25, 0.5, 1.0)
"""Spending as a share of the best single model's, at which quality is read off the curve."""


def run_cell(place: Path, name: str, *, seed: int) -> dict[str, Any]:
    """Return what one method reached on a prepared table; one that cannot run says why."""
    cell: dict[str, Any] = {"set": place.name, "method": name, "told": is_told(name), "seed": seed}
    try:
        cell.update(finite(_measure(name, read_prepared(place), seed=seed)))
        return cell
    except (TurnoutError, ImportError) as error:
        return {**cell, "error": str(error)}
    except Exception as error:  # noqa: BLE001 - one method of many, perhaps of another package: a row says why
        _LOG.exception("%s on %s", name, place.name)
        notes = getattr(error, "__notes__", ())
        return {**cell, "error": "; ".join([f"{type(error).__name__}: {error}", *notes])}


def _measure(name: str, given: Prepared, *, seed: int) -> dict[str, Any]:
    start = time.process_time()
    contestant = fit_contestant(name, given, seed=seed)
    fit_s = time.process_time() - start
    taken = _decisions(contestant, asked(given.test.queries[:NUM_TIMED], name))
    peak_mb = _peak_mb()
    return {
        **_judge(name, contestant, given, seed=seed),
        "flips": flips(contestant, read_pairs()),
        "fit_s": fit_s if contestant.fit_s is None else contestant.fit_s,
        "p50_ms": float(np.quantile(taken, 0.5) * 1e3),
        "p99_ms": float(np.quantile(taken, 0.99) * 1e3),
        "peak_mb": peak_mb if contestant.peak_mb is None else contestant.peak_mb,
        "artifact_mb": contestant.artifact_mb(),
    }


def _decisions(contestant: Contestant, queries: Sequence[Query]) -> list[float]:
    """Return the seconds of single decisions, those of the processor where the method is in this process.

    So what runs beside counts little, and cells of several runs compare. A cell computes in one thread, whose
    own clock is exact; that of a process whose seconds are bounded stands still between two ticks of 4 ms.
    """
    clock = time.thread_time if contestant.fit_s is None else time.perf_counter
    taken = []
    for query in queries:
        start = clock()
        contestant.decide([query])
        taken.append(clock() - start)
    return taken


def _peak_mb() -> float:
    """Return the most memory that this process has held, in MB.

    Linux hands `ru_maxrss` of the parent down to a child, so the high-water mark of the process is read.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _judge(name: str, contestant: Contestant, given: Prepared, *, seed: int) -> dict[str, Any]:
    queries = asked(given.test.queries, name)
    estimate = contestant.estimate(queries)
    chosen = contestant.decide(queries)
    if contestant.has_curve:
        runs = _sweep(contestant, queries, estimate, seed=seed)
        run = Run(chosen=chosen, sweep=runs, estimate=estimate)
    else:
        run = Run(chosen=chosen)
    report = evaluate(
        {name: run},
        given.test,
        train=given.train,
        seed=seed,
        num_resamples=NUM_RESAMPLES,
        leakage="skip",
        cells=given.cells,
    )
    row, single = report[name], report["best single"]
    every = None if row.calibration is None else row.calibration.every
    return {
        "fingerprint": given.test.fingerprint,
        "queries": len(given.test.queries),
        "candidates": len(given.test.candidates),
        "estimated": _estimated(chosen, given),
        "quality": _value(row.quality),
        "spend": _spend(row, single),
        "against_best_single": _value(row.vs_best_single),
        "oracle_share": _value(row.oracle_share),
        "dials": _dials(row, single),
        "cost_at_best_single": None if row.saving is None else _kept(row.saving),
        "aiq": None if row.curve is None else _value(row.curve.aiq),
        "apgr": None if row.curve is None or row.curve.pair is None else _value(row.curve.pair.apgr),
        "ece": None if every is None else every.ece,
        "brier": None if every is None else every.brier,
    }


def _sweep(
    contestant: Contestant, queries: Sequence[Query], estimate: Estimate, *, seed: int
) -> tuple[Decisions, ...]:
    """Return the choices at each price: what is deployed, so behind its guard where there is one."""
    prices, rng = price_grid(estimate, num=50), make_rng(seed, "bench")
    deployed = contestant.deployment
    if deployed is None:
        return sweep(Best(), estimate, prices, rng=rng)
    if deployed.support is not None:
        estimate = estimate.restrict(deployed.support.allowed(queries, len(estimate.candidates)))
    goals = [Goal(usd_per_quality=max(1.0 / price, LEAST_PRICE)) if price else Goal() for price in prices]
    plans = [deployed.plan(goal) for goal in goals]
    return tuple(
        sweep(deployed.policy, estimate, [price], rng=rng)[0]
        if plan.is_open
        else deployed.decide(queries, goal=goal)
        for price, goal, plan in zip(prices, goals, plans, strict=True)
    )


def _estimated(chosen: Decisions, given: Prepared) -> dict[str, float] | None:
    """Return the shares of held-out cells and of choices nobody observed; None where all were observed."""
    if given.cells is None:
        return None
    seen_QM, names = given.test.observed_QM, given.test.names
    seen_Q = [seen_QM[row, names.index(name)] for row, name in enumerate(chosen.names_Q) if name is not None]
    return {"cells": float(1.0 - seen_QM.mean()), "choices": float(1.0 - np.mean(seen_Q))}


def _value(value: Value | None) -> dict[str, float | None] | None:
    return None if value is None else {"value": value.value, "low": value.low, "high": value.high}


def _kept(saving: Saving) -> dict[str, Any]:
    """Return the cost at the best single model's quality, as a share of its cost; None is never.

    Of a best single model that costs nothing there is no share: `is_free`.
    """
    share = saving.share
    ends = {"value": share.value, "low": share.high, "high": share.low}
    kept = {name: None if end is None else 1.0 - end for name, end in ends.items()}
    return {**kept, "is_free": True} if np.isnan(saving.reached) else kept


def _spend(row: Row, single: Row) -> float | None:
    """Return what the choices cost, as a share of the best single model's cost; None where none is known."""
    if row.usd_per_1k is None or single.usd_per_1k is None or not single.usd_per_1k.value:
        return None
    return None if row.usd_per_1k.value is None else row.usd_per_1k.value / single.usd_per_1k.value


def _dials(row: Row, single: Row) -> dict[str, float | None]:
    """Return the best quality of the curve's points at no more than some shares of the best single's cost."""
    if row.curve is None or single.usd_per_1k is None or not single.usd_per_1k.value:
        return {}
    points = [(p.usd_per_1k.value, p.quality.value) for p in row.curve.points if p.usd_per_1k is not None]
    found: dict[str, float | None] = {}
    for share in DIALS:
        cap = share * single.usd_per_1k.value
        below = [quality for usd, quality in points if usd is not None and quality is not None and usd <= cap]
        found[f"{share:g}"] = max(below, default=None)
    return found
