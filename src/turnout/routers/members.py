"""This module handles routers inside a router: one embedder for all, and one estimate out of many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Bools, Floats, OutcomeTable
from turnout.routers.means import column_mean
from turnout.routers.stacking import Held, Weights
from turnout.routers.targets import filled_costs, read_targets

_EDGE = 1e-3


def with_embedder(member: Router, embedder: Embedder | None) -> Router:
    """Return an unfitted copy that reads text through `embedder`; one with its own keeps that."""
    config = member.config()
    if embedder is None or "embedder" not in config or config["embedder"] is not None:
        return member.clone()
    return type(member)(**{**config, "embedder": embedder})


def restored(member: Router, state: State, embedder: Embedder | None) -> Router:
    """Return a copy of a member that holds `state`; a shared embedder is handed in, not stored."""
    copy = with_embedder(member, embedder)
    copy.restore(state)
    return copy


def hold_out(members: Sequence[Router], train: OutcomeTable, test: OutcomeTable) -> Held:
    """Fit every member on `train` and predict `test`."""
    estimates = [member.clone().fit(train).estimate(test.queries) for member in members]
    return held_of(estimates, plain_means(train), test)


def plain_means(table: OutcomeTable) -> Floats:
    """Return the mean of every candidate over what was observed of it, shape (M,)."""
    return column_mean(read_targets(table)[1].quality_QM)


def held_of(estimates: Sequence[Estimate], plain_M: Floats, test: OutcomeTable) -> Held:
    """Return predictions next to what came true; `plain_M` are the means of what was learned from.

    Weights are earned beyond these means and then added to a base of which the ease of queries was taken: a
    member that says no more than a mean over easy queries earns none.
    """
    return Held(
        np.stack([estimate.quality_QM for estimate in estimates]),
        np.stack([estimate.cost_usd_QM for estimate in estimates]),
        np.broadcast_to(plain_M, test.quality_QM.shape),
        test.quality_QM,
        filled_costs(test),
    )


def blend(
    estimates: Sequence[Estimate], base: Estimate, weights: Weights, pool_M: Bools, luck_M: Floats
) -> Estimate:
    """Return one estimate from those of the members; `pool_M` says whose mean is the common part.

    `luck_M` was taken from the means that `base` holds (`BestSingleRouter`). Members average the same lucky
    outcomes, so that it is taken from their blend as well.
    """
    quality_KQM = np.array([estimate.quality_QM for estimate in estimates])
    spread_KQM = [estimate.spread_QM for estimate in estimates]
    mixed_QM = weights.mix(quality_KQM, base.quality_QM + luck_M, pool_M) - luck_M
    clipped_QM = squeezed(mixed_QM)
    with np.errstate(invalid="ignore"):
        spread_QM = weights.spread(clipped_QM, quality_KQM, spread_KQM, base.quality_QM, base.spread_QM)
    return make_estimate(
        base.candidates,
        clipped_QM,
        spread_QM=np.where(np.isnan(mixed_QM), np.inf, spread_QM),
        cost_usd_QM=_weighted(weights.cost_K, [estimate.cost_usd_QM for estimate in estimates]),
        latency_s_QM=_weighted(weights.cost_K, [estimate.latency_s_QM for estimate in estimates]),
    )


def squeezed(quality_QM: Floats) -> Floats:
    """Return qualities in [0, 1), those above 0 in the same order; below 0.999 they stay as they are.

    Clipped, all that is predicted beyond 1 would tie, and ties go to the cheaper candidate: where the best
    are near 1 that is a choice by price alone. Each cell is changed by itself, so that a newcomer beside the
    others changes none of them.
    """
    high_QM = 1.0 - _EDGE**2 / np.maximum(quality_QM - 1.0 + 2.0 * _EDGE, _EDGE)
    inside_QM: Floats = np.maximum(np.where(quality_QM <= 1.0 - _EDGE, quality_QM, high_QM), 0.0)
    return inside_QM


def _weighted(weight_K: Floats, values: Sequence[Floats]) -> Floats:
    """Return the weighted sum; a member without weight may not know."""
    used = [(weight, value) for weight, value in zip(weight_K.tolist(), values, strict=True) if weight > 0.0]
    if len(used) == 1 and used[0][0] == 1.0:
        return used[0][1]
    total_QM: Floats = np.sum([weight * value_QM for weight, value_QM in used], axis=0)
    return total_QM
