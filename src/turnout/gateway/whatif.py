"""This module asks a ledger what its requests would have cost, and given, at another setting of the dial.

Every decision in the ledger keeps what each candidate was expected to give and to cost (`scores`), whom it
chose, and with which probability. At another dial the same scores lead to other choices, and what these would
have cost and given is estimated from the rows as they are (`turnout.evaluation.offpolicy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import msgspec
import numpy as np

from turnout.core.budget import Goal
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.evaluation.offpolicy import Logged, OffPolicyValue, dr, ips, snips
from turnout.gateway.caps import too_small
from turnout.gateway.look import Look, Whose, read_ledger
from turnout.policies.deployment import Deployment

Scores = dict[str, tuple[float | None, float | None]]

_ROWS = """
SELECT chosen, propensity, usd, scores,
    (SELECT avg(score) FROM {feedback} AS f WHERE f.decision_id = r.decision_id)
FROM {requests} AS r
WHERE time_s >= :since AND scores IS NOT NULL AND served = chosen AND status < 400
"""
_decode = msgspec.json.Decoder(Scores).decode


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a span of requests would have come to at one setting of the dial."""

    goal: str
    """The dial in words; `as it was` for the log itself."""
    usd: OffPolicyValue
    """Mean USD of a request."""
    expected_quality: float
    """Mean quality of the choices as the router expects it."""
    feedback: OffPolicyValue | None
    """Mean score that users would have given, from those who gave one; None without any."""
    feedback_weighed: OffPolicyValue | None
    """The same by weights alone; None where the log never tried what the dial would do."""
    changed: float
    """Share of requests that somebody else would have served."""
    support: float
    """Share of requests where the choice had a chance in the log."""
    effective: float
    """Effective number of requests behind the weights."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """A ledger, looked at through several dials."""

    whose: Whose
    """Whose requests these are: those of all hosts where they share a PostgreSQL."""
    num_requests: int
    """Requests that were looked at: decided by a router, served by its choice, at a known price."""
    num_scored: int
    """Those of them that came with feedback."""
    outlooks: tuple[Outlook, ...]
    """As it was, then each dial."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    chosen: str
    propensity: float
    usd: float | None
    scores: Scores
    feedback: float | None


def what_if(
    ledger: str | Path,
    deployment: Deployment,
    goals: Sequence[Goal],
    *,
    url: str | None = None,
    since_s: float = 0.0,
) -> WhatIf:
    """Return what the requests since `since_s` (seconds since the epoch) would have come to at each goal.

    `url` is the PostgreSQL with the rows of all hosts; while it is away, those of the ledger's file count.
    Raises `InputError` where the file is no ledger, has no such request, or the gateway would refuse a goal.
    """
    for goal in goals:
        refused = too_small(deployment, goal, goal.describe())
        if refused is not None:
            raise InputError(f"a gateway would refuse this dial; {refused}")
    whose, found = read_ledger(Path(ledger), url, lambda look: (look.whose, _read(look, since_s)))
    rows = [row for row in found if row.usd is not None and row.chosen in row.scores]
    if not rows:
        raise InputError(
            sentence(
                f"the ledger {str(ledger)!r} holds no request to learn from",
                allowed="requests that a router decided, served by its choice, at a known price",
                got=f"{len(found)} without a known price" if found else "none",
                do="name the prices in the settings (prices.path), and serve some more"
                if found
                else "look further back, or serve some first",
            )
        )
    own = [row.chosen for row in rows]
    return WhatIf(
        whose=whose,
        num_requests=len(rows),
        num_scored=sum(row.feedback is not None for row in rows),
        outlooks=(
            # What came of the log itself needs no weights.
            _outlook("as it was", [replace(row, propensity=1.0) for row in rows], own),
            *(_outlook(goal.describe(), rows, _choices(rows, deployment, goal)) for goal in goals),
        ),
    )


def _read(look: Look, since_s: float) -> list[_Row]:
    found = look.tuples(_ROWS, {"since": since_s})
    return [
        _Row(chosen=chosen, propensity=propensity, usd=usd, scores=known_of(scores), feedback=feedback)
        for chosen, propensity, usd, scores, feedback in found
    ]


def known_of(text: str | None) -> Scores:
    """Return the candidates whose quality and cost were both expected."""
    return {} if text is None else {name: pair for name, pair in _decode(text).items() if None not in pair}


def _choices(rows: Sequence[_Row], deployment: Deployment, goal: Goal) -> list[str]:
    """Return whom the dial would have chosen: the router at its price, or the single model of the guard."""
    plan = deployment.plan(goal)
    single = None
    if not plan.is_open and plan.single is not None:
        single = deployment.candidates[plan.single].name
    return [single if single in row.scores else _best(row.scores, plan.price) for row in rows]


def _best(scores: Mapping[str, tuple[float | None, float | None]], price: float) -> str:
    """Return the highest quality minus price times usd; ties as in `core.scoring.rank`."""

    def rank(name: str) -> tuple[float, float, float, str]:
        quality, usd = scores[name]
        assert quality is not None
        assert usd is not None
        value = -usd if math.isinf(price) else quality - price * usd
        return -value, usd, -quality, name

    return min(scores, key=rank)


def _outlook(goal: str, rows: Sequence[_Row], choices: Sequence[str]) -> Outlook:
    usd = _logged(rows, choices, np.array([row.usd for row in rows], np.float64), column=1)
    cost = dr(usd)
    assert cost is not None
    scored = [place for place, row in enumerate(rows) if row.feedback is not None]
    judged = _logged(
        [rows[place] for place in scored],
        [choices[place] for place in scored],
        np.array([rows[place].feedback for place in scored], dtype=np.float64),
        column=0,
    )
    qualities = [row.scores[choice][0] or 0.0 for row, choice in zip(rows, choices, strict=True)]
    said, weighed = dr(judged), snips(judged) or ips(judged)
    return Outlook(
        goal=goal,
        usd=cost.within(0.0, math.inf),
        expected_quality=math.fsum(qualities) / len(rows),
        feedback=None if said is None else said.within(0.0, 1.0),
        feedback_weighed=None if weighed is None else weighed.within(0.0, 1.0),
        changed=1.0 - float(usd.same_N.mean()),
        support=usd.support,
        effective=usd.effective,
    )


def _logged(rows: Sequence[_Row], choices: Sequence[str], reward_N: Floats, *, column: int) -> Logged:
    return Logged(
        reward_N=reward_N,
        propensity_N=np.array([row.propensity for row in rows]),
        same_N=np.array([row.chosen == choice for row, choice in zip(rows, choices, strict=True)], np.bool_),
        model_N=np.array([row.scores[row.chosen][column] for row in rows], dtype=np.float64),
        target_N=np.array(
            [row.scores[choice][column] for row, choice in zip(rows, choices, strict=True)], dtype=np.float64
        ),
    )
