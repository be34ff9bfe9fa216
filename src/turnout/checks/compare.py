"""This module compares what objects know and predict, and says where they differ."""

from __future__ import annotations

import json

import numpy as np

from turnout.checks.report import CheckFailed, require
from turnout.core.contracts import Configured, State
from turnout.core.errors import sentence
from turnout.core.estimate import Estimate

ARRAYS = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM", "allowed_QM")
"""The arrays of an estimate."""

ROUNDING = 1e-4
"""How far two estimates may lie apart where only the order of float32 additions differs."""


def require_same_estimate(
    subject: object, what: str, first: Estimate, second: Estimate, *, tolerance: float = 0.0
) -> None:
    """Raise `CheckFailed` unless two estimates agree; columns are matched by candidate name.

    Quality, spread and latency may differ by `tolerance`, a cost by that share of the dearest cost.
    """
    require(set(first.names) == set(second.names), subject, what, allowed=first.names, got=second.names)
    other = second.reorder(first.names)
    for name in ARRAYS:
        a_QM, b_QM = getattr(first, name), getattr(other, name)
        require(a_QM.shape == b_QM.shape, subject, f"{what}: {name}", allowed=a_QM.shape, got=b_QM.shape)
        known = np.abs(a_QM[np.isfinite(a_QM)]) if name != "allowed_QM" else np.ones(0)
        scale = float(known.max()) if name == "cost_usd_QM" and known.size else 1.0
        same_QM = np.isclose(a_QM, b_QM, rtol=0.0, atol=tolerance * scale, equal_nan=True)
        if not same_QM.all():
            row, column = (int(index) for index in np.argwhere(~same_QM)[0])
            where = f"{what}: {name} of query {row}, candidate {first.names[column]!r}"
            raise CheckFailed(
                sentence(
                    f"{type(subject).__name__}: {where}",
                    allowed=f"{a_QM[row, column]!s} as before",
                    got=str(b_QM[row, column]),
                )
            )


def require_same_state(subject: object, what: str, first: State, second: State) -> None:
    """Raise `CheckFailed` unless two states are the same to the bit."""
    for kind in ("arrays", "values", "parts"):
        a, b = getattr(first, kind), getattr(second, kind)
        require(set(a) == set(b), subject, f"{what}: the names of {kind}", allowed=sorted(a), got=sorted(b))
    for name, array in first.arrays.items():
        a, b = np.asarray(array), np.asarray(second.arrays[name])
        is_same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        require(is_same, subject, f"{what}: the array {name!r}", allowed="the same bytes", got="others")
    for name, value in first.values.items():
        is_same = json.dumps(value, sort_keys=True) == json.dumps(second.values[name], sort_keys=True)
        require(is_same, subject, f"{what}: the value {name!r}", allowed=value, got=second.values[name])
    for name, part in first.parts.items():
        require_same_state(subject, f"{what}: the part {name!r}", part.state(), second.parts[name].state())


def frozen_copy(state: State) -> State:
    """Return a state that later changes of the object cannot reach."""
    return State(
        arrays={name: np.array(array, copy=True) for name, array in state.arrays.items()},
        values=json.loads(json.dumps(dict(state.values))),
        parts={name: twin(part) for name, part in state.parts.items()},
    )


def twin(thing: Configured) -> Configured:
    """Return a second object with the same configuration and a copy of what was learned."""
    copy = type(thing)(**thing.config())
    copy.restore(frozen_copy(thing.state()))
    return copy
