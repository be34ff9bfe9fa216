"""This module sums the ledger up for the page: everything, by model, by dial, by rule, by error."""

from __future__ import annotations

from typing import Any

from turnout.gateway.look import Look, Span

_IN_SPAN = "time_s >= :since AND time_s < :until"

FAILED = "(status >= 400 OR error IS NOT NULL)"
"""An answer that was refused, failed, or cut short; its model may have served a part and charged for it."""

FELL_BACK = "served <> chosen"
"""Another candidate had to serve; a second try of the same one is none of these."""

TOTALS = f"""
SELECT count(*) AS requests,
    count(*) FILTER (WHERE status < 400 AND error IS NULL) AS served,
    count(*) FILTER (WHERE {FAILED}) AS failed,
    count(*) FILTER (WHERE {{running}}) AS running,
    count(*) FILTER (WHERE {{lost}}) AS lost,
    count(*) FILTER (WHERE served IS NULL) AS unserved,
    count(*) FILTER (WHERE {FELL_BACK}) AS fell_back,
    coalesce(sum(CASE WHEN is_replay THEN 0.0 ELSE usd END), 0.0) AS usd,
    coalesce(sum(CASE WHEN is_replay THEN usd ELSE 0.0 END), 0.0) AS replayed_usd,
    coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cached_tokens), 0) AS cached_tokens,
    count(*) FILTER (WHERE served IS NOT NULL AND usd IS NULL) AS unpriced
FROM {{requests}} WHERE {_IN_SPAN}
"""
"""Served, failed, running and lost are all there is, and no request is two of them."""

BY_MODEL = f"""
SELECT served AS name, count(*) AS requests, count(*) FILTER (WHERE {FAILED}) AS failed, sum(usd) AS usd,
    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens
FROM {{requests}} WHERE {_IN_SPAN} AND served IS NOT NULL GROUP BY served ORDER BY requests DESC, served
"""

SAVING = f"""
SELECT count(*) AS requests, coalesce(sum(own), 0.0) AS usd, coalesce(sum(single), 0.0) AS single_usd
FROM (
    SELECT {{served_usd}} AS own, {{single_usd}} AS single FROM {{requests}}
    WHERE {_IN_SPAN} AND scores IS NOT NULL AND status < 400 AND error IS NULL AND served NOT LIKE '%"%'
) AS expected WHERE own IS NOT NULL AND single IS NOT NULL
"""

FEEDBACK = f"""
SELECT count(*) AS scores, avg(score) AS mean FROM {{feedback}}
WHERE decision_id IN (SELECT decision_id FROM {{decisions}} WHERE {_IN_SPAN})
"""

_GROUPED = """
SELECT {column} AS name, count(*) AS requests FROM {{requests}}
WHERE {span} AND {column} IS NOT NULL GROUP BY {column} ORDER BY requests DESC, {column} LIMIT 12
"""
BY_DIAL = _GROUPED.format(column="goal", span=_IN_SPAN)
BY_RULE = _GROUPED.format(column="rule", span=_IN_SPAN)
BY_ERROR = _GROUPED.format(column="error", span=_IN_SPAN)


def totals(look: Look, span: Span) -> dict[str, Any]:
    """Return the sums over everything."""
    return look.rows(TOTALS, span.bounds)[0]


def by_model(look: Look, span: Span) -> list[dict[str, Any]]:
    """Return the sums of each model that served, the busiest first."""
    return look.rows(BY_MODEL, span.bounds)


def saving(look: Look, span: Span, single: str | None) -> dict[str, Any] | None:
    """Return what the router expected of whoever served, and of the best single model on the same requests.

    Both sides are expectations, made before the answer from the same text, so that a pool in which the best
    single model serves everybody saves exactly nothing. Only requests that were answered, with both known,
    count. None where there is no best single model.
    """
    if single is None or '"' in single:
        return None
    row = look.rows(SAVING, {**span.bounds, "single": single})[0]
    share = 1.0 - row["usd"] / row["single_usd"] if row["single_usd"] > 0 else None
    return {"single": single, **row, "share": share}


def groups(look: Look, span: Span) -> dict[str, Any]:
    """Return how often each dial, rule and error occurred, and the scores that came back."""
    return {
        "dials": look.rows(BY_DIAL, span.bounds),
        "rules": look.rows(BY_RULE, span.bounds),
        "errors": look.rows(BY_ERROR, span.bounds),
        "feedback": look.rows(FEEDBACK, span.bounds)[0],
    }
