"""This module cuts a span into equal slots and counts the requests of each by model."""

from __future__ import annotations

from typing import Any

from turnout.gateway.look import Look, Span

NUM_SLOTS = 60
"""Slots of the picture."""

OTHERS = ""
"""Stands for requests that nobody served: refused, failed, or still running."""

TIMELINE = """
SELECT CAST({floor}((time_s - :since) * :slots / (:until - :since)) AS INTEGER) AS slot,
    coalesce(served, '') AS name, count(*) AS requests
FROM {requests} WHERE time_s >= :since AND time_s < :until GROUP BY slot, name
"""


def timeline(look: Look, span: Span) -> dict[str, Any]:
    """Return the counts of every slot by model; the sum over all of them is the number of requests."""
    counts: dict[str, list[int]] = {}
    for slot, name, requests in look.tuples(TIMELINE, {**span.bounds, "slots": float(NUM_SLOTS)}):
        # Rounding may put what came just before the end beyond the last slot.
        counts.setdefault(name, [0] * NUM_SLOTS)[min(slot, NUM_SLOTS - 1)] += requests
    return {"slots": NUM_SLOTS, "counts": counts}
