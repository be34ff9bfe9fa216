"""This module puts a look at the gateway together: one document, from one state of the ledger."""

from __future__ import annotations

from typing import Any

from turnout.gateway.look import Look, Span, look_at, url_of
from turnout.gateway.parts import Parts
from turnout.gateway.ui.curve import curve
from turnout.gateway.ui.speeds import speeds
from turnout.gateway.ui.timeline import timeline
from turnout.gateway.ui.totals import by_model, groups, saving, totals

SPANS_S = {"15m": 900.0, "1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0, "all": None}
"""Name of a span -> its length in seconds; None begins with the first decision."""


def overview(parts: Parts, name: str) -> dict[str, Any]:
    """Return the document of a span that ends now; raises `sqlite3.Error` where the ledger cannot be read."""
    deployment = parts.selector.deployment
    frontier = None if deployment is None else deployment.frontier
    single = None if frontier is None else parts.selector.candidates[frontier.best].name
    now_s = parts.clock.now_s()

    def ask(look: Look) -> dict[str, Any]:
        span = _span(name, now_s, look.first_s())
        return {
            "span": {"name": name, "since_s": span.since_s, "until_s": span.until_s},
            "whose": look.whose,
            "totals": totals(look, span),
            "models": by_model(look, span),
            "saving": saving(look, span, single),
            "timeline": timeline(look, span),
            "speeds": speeds(look, span),
            **groups(look, span),
        }

    return {
        **look_at(parts.ledger.path, url_of(parts.ledger.sender), ask),
        "curve": None if deployment is None else curve(deployment, parts.selector.goal),
        "breakers": parts.breakers.listed(),
        "gateway": {
            "fingerprint": parts.selector.fingerprint,
            "candidates": list(parts.selector.by_name) or list(parts.selector.unrouted),
            "ledger_failure": parts.ledger.failure,
            "is_shared": parts.ledger.sender is not None,
            "running": parts.gate.num_running,
            "waiting": parts.gate.num_waiting,
            "since_s": parts.created_s,
        },
    }


def _span(name: str, now_s: float, first: float | None) -> Span:
    length_s = SPANS_S[name]
    since_s = (now_s - 1.0 if first is None else first) if length_s is None else now_s - length_s
    # The end is left out, and a decision of this very moment shall be in.
    return Span(since_s=min(since_s, now_s - 1.0), until_s=now_s + 1e-3)
