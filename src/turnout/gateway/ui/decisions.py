"""This module lists decisions, the latest first, and opens one of them to its reasons."""

from __future__ import annotations

from typing import Any

import msgspec

from turnout.gateway.look import Look
from turnout.gateway.ui.totals import FAILED, FELL_BACK

PAGE = 25
"""Decisions of one page."""

FILTERS = {
    "all": "TRUE",
    "failed": FAILED,
    "running": "{running}",
    "lost": "{lost}",
    "fell back": FELL_BACK,
    "by rule": "rule IS NOT NULL",
    "scored": "decision_id IN (SELECT decision_id FROM {feedback})",
}
"""Name of a filter -> its condition."""

_LIST = """
SELECT decision_id, time_s, requested_model, chosen, served, reason, rule, usd, latency_s, status, error,
    attempts, is_stream, is_replay, input_tokens, output_tokens, {lost} AS is_lost
FROM {requests} WHERE {condition} AND (time_s, decision_id) < (:before, :id)
ORDER BY time_s DESC, decision_id DESC LIMIT :limit
"""
_FLAGS = ("is_stream", "is_replay", "is_lost", "usage_estimated")
_NEVER_S = 1e12
"""Seconds since the epoch that no clock of ours will show."""
_ONE = "SELECT *, {lost} AS is_lost FROM {requests} WHERE decision_id = :id"
_SCORES = "SELECT time_s, score, source FROM {feedback} WHERE decision_id = :id ORDER BY time_s"
_TRACE = "SELECT sequencer, ended, calls, thoughts, usd FROM {traces} WHERE decision_id = :id"


def latest(look: Look, *, kind: str, before_s: float | None, before_id: str) -> dict[str, Any]:
    """Return one page of decisions older than the given one, and where the next page begins."""
    query = _LIST.replace("{condition}", FILTERS[kind])
    before = _NEVER_S if before_s is None else before_s
    rows = look.rows(query, {"before": before, "id": before_id, "limit": PAGE + 1})
    page = [_flagged(row) for row in rows[:PAGE]]
    more = {"time_s": page[-1]["time_s"], "id": page[-1]["decision_id"]} if len(rows) > PAGE else None
    return {"decisions": page, "next": more}


def opened(look: Look, decision_id: str) -> dict[str, Any] | None:
    """Return a decision with everything that is known of why; None where there is none of that id."""
    rows = look.rows(_ONE, {"id": decision_id})
    if not rows:
        return None
    row = _flagged(rows[0])
    traces = look.rows(_TRACE, {"id": decision_id})
    return {
        **row,
        "scores": _ranked(row["scores"], row["price"]),
        "feedback": look.rows(_SCORES, {"id": decision_id}),
        "trace": traces[0] if traces else None,
    }


def _flagged(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose flags are true and false in either kind of ledger."""
    flags = {name: None if row[name] is None else bool(row[name]) for name in _FLAGS if name in row}
    return {**row, **flags}


def _ranked(scores: str | None, price: float | None) -> list[dict[str, Any]]:
    """Return who might have served, by the score at the price in force: quality minus price times usd."""
    if scores is None:
        return []
    found: dict[str, tuple[float | None, float | None]] = msgspec.json.decode(scores)
    rows = [
        {"name": name, "quality": quality, "usd": usd, "score": _score(quality, usd, price)}
        for name, (quality, usd) in found.items()
    ]
    return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0), row["name"]))


def _score(quality: float | None, usd: float | None, price: float | None) -> float | None:
    if quality is None or price is None:
        return None
    if price == 0.0:
        return quality
    return None if usd is None else quality - price * usd
