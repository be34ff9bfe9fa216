"""This module cuts a span into equal slots and counts the requests of each by model."""

from __future__ import annotations

import sqlite3
from typing import Any

from turnout.gateway.ui.reading import Span, rows_of

NUM_SLOTS = 60
"""Slots of the picture."""

OTHERS = ""
"""Stands for requests that nobody served: refused, failed, or still running."""

TIMELINE = """
SELECT min(CAST((time_s - :since) * :slots / (:until - :since) AS INTEGER), :slots - 1) AS slot,
    coalesce(served, '') AS name, count(*) AS requests
FROM requests WHERE time_s >= :since AND time_s < :until GROUP BY slot, name
"""


def timeline(connection: sqlite3.Connection, span: Span) -> dict[str, Any]:
    """Return the counts of every slot by model; the sum over all of them is the number of requests."""
    counts: dict[str, list[int]] = {}
    for row in rows_of(connection, TIMELINE, {**span.bounds, "slots": NUM_SLOTS}):
        counts.setdefault(row["name"], [0] * NUM_SLOTS)[row["slot"]] = row["requests"]
    return {"slots": NUM_SLOTS, "counts": counts}
