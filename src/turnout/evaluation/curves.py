"""This module sums a sweep up: its points with their intervals, and the numbers of the whole curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.evaluation import deferral
from turnout.evaluation.aiq import aiq, aiq_draws
from turnout.evaluation.hull import on_hull
from turnout.evaluation.pair import apgr, cpt
from turnout.evaluation.report import Curve, CurvePoint, PairScores
from turnout.evaluation.saving import Saving, as_saving, cost_save, perf_gain
from turnout.evaluation.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from turnout.core.outcomes import Floats, Ints
    from turnout.evaluation.judge import Judged
    from turnout.evaluation.runs import Choices

CPT_LEVELS = (0.2, 0.5, 0.8)


def make_curve(judged: Judged, run: Choices) -> Curve | None:
    """Return the summary of the run's sweep; None without one."""
    if not run.prices_P.size:
        return None
    means, slots = judged.means, judged.columns.sweep[run.name]
    single = judged.columns.head["best single"]
    gain_B = perf_gain(means.quality_BU[:, slots], single_quality=means.quality_BU[:, single])
    gain = perf_gain(means.quality_U[slots], single_quality=means.quality_U[single])
    area, quotient = _areas(judged, slots)
    mixed = saving_on(judged, slots, allow_mixing=True)
    plain = saving_on(judged, slots)
    return Curve(
        points=_points(judged, run, slots),
        aiq=quotient,
        area=area,
        peak=means.over(means.quality_U[slots].max(), means.quality_BU[:, slots].max(axis=1)),
        qnc=None if plain is None else _as_qnc(plain),
        mixed_saving=mixed,
        perf_gain=means.over(gain, gain_B),
        pair=_pair(judged, run.name, slots),
    )


def mix_aiq(judged: Judged) -> float | None:
    """Return the AIQ of the single candidates' envelope; None without costs or a range of budgets."""
    cost_usd_U, span = judged.means.cost_usd_U, judged.cost_range_usd
    slots = list(judged.columns.single.values())
    if cost_usd_U is None or span is None or not slots:
        return None
    return aiq(cost_usd_U[slots], judged.means.quality_U[slots], low_usd=span[0], high_usd=span[1])


def saving_on(judged: Judged, slots: Ints, *, allow_mixing: bool = False) -> Saving | None:
    """Return what the columns save at no lower quality than the best single; None without costs."""
    means, single = judged.means, judged.columns.head["best single"]
    if means.cost_usd_U is None or means.cost_usd_BU is None:
        return None
    value = cost_save(
        means.cost_usd_U[slots],
        means.quality_U[slots],
        single_usd=means.cost_usd_U[single],
        single_quality=means.quality_U[single],
        allow_mixing=allow_mixing,
    )
    draws_B = cost_save(
        means.cost_usd_BU[:, slots],
        means.quality_BU[:, slots],
        single_usd=means.cost_usd_BU[:, single],
        single_quality=means.quality_BU[:, single],
        allow_mixing=allow_mixing,
    )
    return as_saving(float(value), draws_B, means.confidence)


def _points(judged: Judged, run: Choices, slots: Ints) -> tuple[CurvePoint, ...]:
    means = judged.means
    if means.cost_usd_U is None:
        is_best_P = np.zeros(slots.size, dtype=np.bool_)
    else:
        is_best_P = on_hull(means.cost_usd_U[slots], means.quality_U[slots])
    return tuple(
        CurvePoint(
            price=float(price),
            quality=means.quality(int(slot)),
            usd_per_1k=means.usd_per_1k(int(slot)),
            is_on_hull=bool(is_best),
        )
        for price, slot, is_best in zip(run.prices_P, slots, is_best_P, strict=True)
    )


def _areas(judged: Judged, slots: Ints) -> tuple[Value | None, Value | None]:
    """Return the area under the deferral curve and the AIQ over the report's range of budgets."""
    means, span = judged.means, judged.cost_range_usd
    if means.cost_usd_U is None or means.cost_usd_BU is None or span is None:
        return None, None
    slots = np.unique(slots)
    low, high = span
    cost_P, quality_P = means.cost_usd_U[slots], means.quality_U[slots]
    cost_BP, quality_BP = means.cost_usd_BU[:, slots], means.quality_BU[:, slots]
    area = means.over(
        deferral.area(cost_P, quality_P, low_usd=low, high_usd=high),
        deferral.area(cost_BP, quality_BP, low_usd=low, high_usd=high),
    )
    quotient = means.over(
        aiq(cost_P, quality_P, low_usd=low, high_usd=high),
        aiq_draws(cost_BP, quality_BP, low_usd=low, high_usd=high),
    )
    return area, quotient


def _as_qnc(saving: Saving) -> Value:
    share = saving.share
    ends = (share.value, share.high, share.low)
    return Value(*(None if end is None else 1.0 - end for end in ends))


def _pair(judged: Judged, name: str, slots: Ints) -> PairScores | None:
    if judged.strong is None or len(judged.columns.single) != 2:
        return None
    strong, weak = judged.strong, next(n for n in judged.table.names if n != judged.strong)
    means, share_P = judged.means, judged.columns.strong[name]
    ends = [judged.columns.single[weak], judged.columns.single[strong]]

    def over(measure: Callable[..., float], **options: object) -> Value:
        def one(row: Floats) -> float:
            low, high = row[ends]
            return measure(row[share_P], row[slots], weak=low, strong=high, **options)

        return means.over(one(means.quality_U), np.array([one(row) for row in means.quality_BU]))

    low, high = means.quality_U[ends]
    published = apgr(means.quality_U[share_P], means.quality_U[slots], weak=low, strong=high, form="routellm")
    return PairScores(
        weak=weak,
        strong=strong,
        apgr=over(apgr),
        apgr_routellm=None if np.isnan(published) else float(published),
        cpt={f"{level:.0%}": over(cpt, at=level) for level in CPT_LEVELS},
    )
