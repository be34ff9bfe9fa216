"""This module sums the ledger up for the page: everything, by model, by dial, by rule, by error."""

from __future__ import annotations

import sqlite3
from typing import Any

from turnout.gateway.ui.reading import Span, rows_of

_IN_SPAN = "time_s >= :since AND time_s < :until"

TOTALS = f"""
SELECT count(*) AS requests,
    coalesce(sum(status IS NULL), 0) AS running,
    coalesce(sum(status >= 400), 0) AS failed,
    coalesce(sum(served IS NOT NULL), 0) AS served,
    coalesce(sum(attempts > 1), 0) AS fell_back,
    coalesce(sum(CASE WHEN is_replay THEN 0.0 ELSE usd END), 0.0) AS usd,
    coalesce(sum(CASE WHEN is_replay THEN usd ELSE 0.0 END), 0.0) AS replayed_usd,
    coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cached_tokens), 0) AS cached_tokens,
    coalesce(sum(served IS NOT NULL AND usd IS NULL), 0) AS unpriced
FROM requests WHERE {_IN_SPAN}
"""

BY_MODEL = f"""
SELECT served AS name, count(*) AS requests, coalesce(sum(status >= 400), 0) AS failed, sum(usd) AS usd,
    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens
FROM requests WHERE {_IN_SPAN} AND served IS NOT NULL GROUP BY served ORDER BY requests DESC, served
"""

SAVING = f"""
SELECT count(*) AS requests, coalesce(sum(usd), 0.0) AS usd, coalesce(sum(single), 0.0) AS single_usd
FROM (SELECT usd, json_extract(scores, :path) AS single FROM requests WHERE {_IN_SPAN} AND usd IS NOT NULL)
WHERE single IS NOT NULL
"""

FEEDBACK = f"""
SELECT count(*) AS scores, avg(score) AS mean
FROM feedback JOIN decisions ON decisions.decision_id = feedback.decision_id
WHERE decisions.{_IN_SPAN.replace("AND time_s", "AND decisions.time_s")}
"""

_GROUPED = """
SELECT {column} AS name, count(*) AS requests FROM requests
WHERE {span} AND {column} IS NOT NULL GROUP BY {column} ORDER BY requests DESC, {column} LIMIT 12
"""
BY_DIAL = _GROUPED.format(column="goal", span=_IN_SPAN)
BY_RULE = _GROUPED.format(column="rule", span=_IN_SPAN)
BY_ERROR = _GROUPED.format(column="error", span=_IN_SPAN)


def totals(connection: sqlite3.Connection, span: Span) -> dict[str, Any]:
    """Return the sums over everything."""
    return rows_of(connection, TOTALS, span.bounds)[0]


def by_model(connection: sqlite3.Connection, span: Span) -> list[dict[str, Any]]:
    """Return the sums of each model that served, the busiest first."""
    return rows_of(connection, BY_MODEL, span.bounds)


def saving(connection: sqlite3.Connection, span: Span, single: str | None) -> dict[str, Any] | None:
    """Return what was spent, and what the best single model was expected to cost on the same requests.

    Only requests where both are known count. None where there is no best single model.
    """
    if single is None or '"' in single:
        return None
    row = rows_of(connection, SAVING, {**span.bounds, "path": f'$."{single}"[1]'})[0]
    share = 1.0 - row["usd"] / row["single_usd"] if row["single_usd"] > 0 else None
    return {"single": single, **row, "share": share}


def groups(connection: sqlite3.Connection, span: Span) -> dict[str, Any]:
    """Return how often each dial, rule and error occurred, and the scores that came back."""
    return {
        "dials": rows_of(connection, BY_DIAL, span.bounds),
        "rules": rows_of(connection, BY_RULE, span.bounds),
        "errors": rows_of(connection, BY_ERROR, span.bounds),
        "feedback": rows_of(connection, FEEDBACK, span.bounds)[0],
    }
