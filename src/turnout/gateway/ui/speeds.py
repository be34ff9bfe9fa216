"""This module finds percentiles of latency, exactly: the value at a rank, never one between two values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from turnout.gateway.look import Look, Span

SHARES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
"""Name of a percentile -> the share of values that are at most as large."""

SPEEDS = """
SELECT served, latency_s, first_byte_s, decision_s FROM {requests}
WHERE time_s >= :since AND time_s < :until AND served IS NOT NULL AND status < 400 AND error IS NULL
"""


def speeds(look: Look, span: Span) -> dict[str, Any]:
    """Return percentiles of the answers that came to a good end: of all, and of each model."""
    rows = look.tuples(SPEEDS, span.bounds)
    names = np.array([row[0] for row in rows], dtype=object)
    columns = {
        name: np.array([row[place] for row in rows], dtype=np.float64)
        for place, name in enumerate(("latency_s", "first_byte_s", "decision_s"), start=1)
    }
    by_model = [
        {"name": name, "latency_s": percentiles(columns["latency_s"][names == name])}
        for name in sorted(set(names))
    ]
    return {**{name: percentiles(values) for name, values in columns.items()}, "models": by_model}


def percentiles(values: np.ndarray) -> dict[str, float | int | None]:
    """Return count and percentiles of what is known, by the nearest rank; None where nothing is."""
    known = np.sort(values[~np.isnan(values)])
    ranks = {name: math.ceil(share * known.size) - 1 for name, share in SHARES.items()}
    found = {name: float(known[rank]) if known.size else None for name, rank in ranks.items()}
    return {"count": int(known.size), **found}
