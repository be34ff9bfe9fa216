"""This module lets chance choose on a share of requests, so that a ledger can tell what others give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from turnout.core.estimate import Estimate

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
    if rng.random() >= share:
        return undrawn(selection, share)
    allowed = _allowed(estimate, selection.row)
    each = share / len(allowed)
    column = allowed[int(rng.integers(len(allowed)))]
    drawn = estimate.candidates[column]
    own = selection.ranked[0]
    return msgspec.structs.replace(
        selection,
        ranked=(drawn, *(one for one in selection.ranked if one.name != drawn.name)),
        own=own,
        reason=selection.reason if drawn.name == own.name else EXPLORED,
        propensity=each + (1.0 - share if drawn.name == own.name else 0.0),
        expected_quality=float(estimate.quality_QM[selection.row, column]),
        expected_cost_usd=float(estimate.cost_usd_QM[selection.row, column]),
    )


def undrawn(selection: Selection, share: float) -> Selection:
    """Return the router's own choice, with the chance that it is asked where others are drawn on a share."""
    if selection.estimate is None or selection.propensity < 1.0:
        return selection
    each = share / len(_allowed(selection.estimate, selection.row))
    return msgspec.structs.replace(selection, propensity=1.0 - share + each)


def _allowed(estimate: Estimate, row: int) -> list[int]:
    columns: list[int] = np.flatnonzero(estimate.allowed_QM[row]).tolist()
    return columns
