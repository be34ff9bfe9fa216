"""This module sums up a ledger: who served how much, what it cost, what is not known."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import quote

from turnout.core.errors import InputError, sentence


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSpend:
    """What one candidate served."""

    num_requests: int
    usd: float
    """Known spend; requests of unknown price are not in it."""
    input_tokens: int
    output_tokens: int


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SpendSummary:
    """What a ledger says about a span of time."""

    num_requests: int
    """Every request, whatever became of it."""
    num_failed: int
    """Requests that ended with a status of 400 or more, clients that left included."""
    num_open: int
    """Requests with a decision and no result: in flight, or lost in a crash."""
    num_unpriced: int
    """Answered requests whose spend is unknown (no price card, or no token counts)."""
    num_estimated: int
    """Answered requests whose token counts are estimates."""
    usd: float
    """Known spend at real providers."""
    replayed_usd: float
    """What the replayed answers would have cost; nobody was charged."""
    by_candidate: Mapping[str, CandidateSpend]
    """By the name of the candidate that served, real and replayed together."""


_TOTALS = """
SELECT count(*), coalesce(sum(status >= 400), 0), coalesce(sum(status IS NULL), 0),
    coalesce(sum(served IS NOT NULL AND usd IS NULL), 0),
    coalesce(sum(served IS NOT NULL AND usage_estimated), 0),
    coalesce(sum(CASE WHEN is_replay THEN 0.0 ELSE usd END), 0.0),
    coalesce(sum(CASE WHEN is_replay THEN usd ELSE 0.0 END), 0.0)
FROM requests WHERE time_s >= ?
"""
_BY_CANDIDATE = """
SELECT served, count(*), coalesce(sum(usd), 0.0), coalesce(sum(input_tokens), 0),
    coalesce(sum(output_tokens), 0)
FROM requests WHERE time_s >= ? AND served IS NOT NULL GROUP BY served ORDER BY served
"""


def spend_summary(ledger: str | Path, *, since_s: float | None = None) -> SpendSummary:
    """Sum up a ledger, from `since_s` (seconds since the epoch) on; a running gateway is not disturbed.

    Raises `InputError` where the file is no ledger.
    """
    since = 0.0 if since_s is None else since_s
    try:
        connection = sqlite3.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True)
        try:
            totals = connection.execute(_TOTALS, (since,)).fetchone()
            rows = connection.execute(_BY_CANDIDATE, (since,)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(
            sentence(
                f"{str(ledger)!r} cannot be read as a ledger",
                allowed="a SQLite file that a turnout gateway wrote",
                got=str(error),
                do="check the path",
            )
        ) from error
    names = ("num_requests", "num_failed", "num_open", "num_unpriced", "num_estimated", "usd", "replayed_usd")
    by_candidate = {
        name: CandidateSpend(num_requests=count, usd=usd, input_tokens=tokens_in, output_tokens=tokens_out)
        for name, count, usd, tokens_in, tokens_out in rows
    }
    return SpendSummary(**dict(zip(names, totals, strict=True)), by_candidate=by_candidate)
