"""This module puts a decision into words and numbers: what was expected of whom, and what kept whom out."""

from __future__ import annotations

import math
from typing import Any

from turnout.core.budget import Goal
from turnout.core.errors import InputError
from turnout.core.estimate import Estimate
from turnout.core.scoring import score
from turnout.gateway.breakers import Breakers
from turnout.gateway.parts import Parts
from turnout.gateway.rules import Ruling
from turnout.gateway.select import Selection, Selector
from turnout.gateway.wire import ChatRequest
from turnout.policies.masks import obstacles

Json = dict[str, Any]


def goal_in_words(selector: Selector, goal: Goal | None, whose: str | None, ruling: Ruling | None) -> Json:
    """Return the dial in force, who set it, and what is promised about it; no values where nobody chooses."""
    if selector.deployment is None:
        return dict.fromkeys(("text", "source", "promise", "router_decides"))
    own = selector.goal if goal is None else goal
    has_rule = ruling is not None and any(rule.goal is not None for rule in ruling.rules)
    if goal is not None:
        source = "the request" if whose is None else whose
    elif has_rule:
        source = "a rule"
    else:
        source = "the deployment" if own is None else "the configuration"
    text = (selector.deployment.goal if own is None else own).describe()
    try:
        plan = selector.deployment.plan(own)
    except InputError as error:
        return {"text": text, "source": source, "promise": str(error), "router_decides": None}
    return {"text": text, "source": source, "promise": plan.text, "router_decides": plan.is_open}


def choice_in_words(selection: Selection | None) -> Json:
    """Return who would be asked, in order, and why; the same members, without values, where nobody would."""
    if selection is None:
        unknown = ("reason", "propensity", "price", "fingerprint", "decision_us")
        return {"chosen": None, "ranked": [], **dict.fromkeys(unknown)}
    return {
        "chosen": selection.ranked[0].name,
        "ranked": [candidate.name for candidate in selection.ranked],
        "reason": selection.reason,
        "propensity": selection.propensity,
        "price": known(selection.price),
        "fingerprint": selection.fingerprint,
        "decision_us": round(selection.decision_s * 1e6),
    }


def candidates_in_words(
    parts: Parts, selector: Selector, selection: Selection | None, request: ChatRequest
) -> list[Json]:
    """Return every candidate of the router: estimate, score at the price in force, and what keeps it out."""
    if selector.deployment is None:
        return []
    query = request.query("explain")
    estimate = None if selection is None else selection.estimate
    if estimate is None:
        estimate = selector.deployment.router.estimate([query])
    price = 0.0 if selection is None or math.isnan(selection.price) else selection.price
    score_M = score(estimate.quality_QM, estimate.cost_usd_QM, price)[0]
    refused = obstacles(query, estimate.candidates)
    states = _states(parts, parts.breakers)
    rows = []
    for column, candidate in enumerate(estimate.candidates):
        name = candidate.name
        why_not = refused.get(name)
        if why_not is None and name not in selector.allowed:
            why_not = "a rule leaves it out"
        rows.append(
            {
                "name": name,
                **_expected(estimate, column),
                "score": known(float(score_M[column])),
                "may_serve": why_not is None,
                "why_not": why_not,
                "breaker": states[name],
            }
        )
    return rows


def _expected(estimate: Estimate, column: int) -> Json:
    return {
        "quality": known(float(estimate.quality_QM[0, column])),
        "spread": known(float(estimate.spread_QM[0, column])),
        "usd": known(float(estimate.cost_usd_QM[0, column])),
        "latency_s": known(float(estimate.latency_s_QM[0, column])),
    }


def _states(parts: Parts, breakers: Breakers) -> dict[str, object]:
    """Return the state of the breaker of each candidate's place."""
    by_place = {(row["provider"], row["model"]): row["state"] for row in breakers.listed()}
    return {name: by_place[provider.name, model] for name, (provider, model) in parts.places.items()}


def known(value: float) -> float | None:
    """Return a finite number, or None for what is unknown."""
    return value if math.isfinite(value) else None
