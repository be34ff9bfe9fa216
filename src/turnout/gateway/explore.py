"""This module lets chance choose on a share of requests, so that a ledger can tell what others give."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from turnout.gateway.select import Selection


EXPLORED = "explored"
"""The reason of a choice that chance made."""


def explored(selection: Selection, share: float, rng: np.random.Generator) -> Selection:
    """Return the selection, or on a share of requests one of anybody who may serve, all with equal chance.

    Either way its propensity is that of the whole scheme: `share / K` for each of the K who may serve, and
    `1 - share` more for the router's own choice. A choice that was drawn already keeps its own.
    """
    estimate = selection.estimate
    if estimate is None or selection.propensity < 1.0:
        return selection
    allowed = np.flatnonzero(estimate.allowed_QM[selection.row]).tolist()
    own = selection.ranked[0]
    each = share / len(allowed)
    if rng.random() >= share:
        return dataclasses.replace(selection, propensity=1.0 - share + each)
    column = allowed[int(rng.integers(len(allowed)))]
    drawn = estimate.candidates[column]
    return dataclasses.replace(
        selection,
        ranked=(drawn, *(one for one in selection.ranked if one.name != drawn.name)),
        own=own,
        reason=selection.reason if drawn.name == own.name else EXPLORED,
        propensity=each + (1.0 - share if drawn.name == own.name else 0.0),
        expected_quality=float(estimate.quality_QM[selection.row, column]),
        expected_cost_usd=float(estimate.cost_usd_QM[selection.row, column]),
    )
