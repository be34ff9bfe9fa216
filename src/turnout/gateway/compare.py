"""This module compares two deployments on the requests that both decided, from the ledger alone.

A request's side was drawn, so the probability of whoever was asked is known: the share of requests that the
second one serves, and the chance in either's choice. With it, what either would have given is estimated for
every request by the doubly robust estimator of `turnout.evaluation.offpolicy`, and the difference of the two
averaged. Where both choose the same the difference is 0 and adds no noise. Requests of one unit (a
conversation, a user) stand and fall together, so intervals count units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, final

import msgspec
import numpy as np

from turnout.core.outcomes import Floats
from turnout.gateway.explore import EXPLORED
from turnout.gateway.look import Look, Whose, read_ledger
from turnout.gateway.settings_rollout import RolloutSettings
from turnout.gateway.whatif import Scores, known_of

MOST = 50_000
"""Requests that are compared, the latest: more take seconds from a gateway that serves beside it."""

_PAIRS = """
SELECT r.branch, r.unit, r.chosen, coalesce(r.own, r.chosen), r.reason, r.propensity, r.scores, r.usd,
    s.chosen, s.scores, s.share,
    (SELECT avg(score) FROM {feedback} AS f WHERE f.decision_id = r.decision_id)
FROM {requests} AS r JOIN {shadows} AS s ON s.decision_id = r.decision_id
WHERE r.time_s >= :since AND s.chosen IS NOT NULL AND r.scores IS NOT NULL
    AND r.reason NOT IN ('named', 'pinned') AND CASE r.branch
    WHEN 'live' THEN r.fingerprint = :live AND s.fingerprint = :second
    WHEN 'canary' THEN r.fingerprint = :second AND s.fingerprint = :live END
ORDER BY r.time_s DESC LIMIT :most
"""
_ENDED = """
SELECT count(*), count(*) FILTER (WHERE status >= 500 OR error IS NOT NULL) FROM {requests}
WHERE time_s >= :since AND branch = :branch AND fingerprint = :fingerprint AND (status < 400 OR status >= 500)
"""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """A difference, second minus live, with a one-sided bound on either side."""

    mean: float
    low: float
    high: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What one side served, and how often that failed."""

    requests: int
    failures: int


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two deployments on the same requests."""

    live: str
    """Fingerprint of the deployment in force."""
    second: str
    requests: int
    """Requests that both decided, and on which either could have been asked; of none, those in the shadow."""
    scored: int
    """Those of them that came with feedback."""
    changed: float
    """Share of requests on which the two choose otherwise."""
    support: float
    """Share of requests on which the second one's choice had a chance to be asked."""
    quality: Bounds | None
    """Difference of mean feedback; None without enough."""
    usd: Bounds | None
    """Difference of the mean cost in USD."""
    usd_live: float | None
    """Mean cost of the deployment in force, by the same estimate."""
    canary: Served
    control: Served
    failures: Bounds | None
    """Difference of the shares of failed requests; None where the second one served nobody."""
    confidence: float
    """Of each bound."""
    whose: Whose
    """Whose requests these are: those of all hosts where they share a PostgreSQL."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    unit: str
    chosen: str
    live: str
    """Whom the deployment in force chooses."""
    second: str
    is_open: bool
    """Whether chance let either choice be asked."""
    chance: Mapping[str, float]
    """Probability of each choice, over both sides."""
    expected: Scores
    usd: float | None
    score: float | None


def compare(
    ledger: str | Path,
    live: str,
    second: str,
    *,
    url: str | None = None,
    confidence: float = 0.95,
    since_s: float = 0.0,
    most: int = MOST,
) -> Comparison:
    """Compare two deployments, named by their fingerprints, on the latest requests that both decided.

    `url` is the PostgreSQL with the rows of all hosts; while it is away, those of the ledger's file are
    compared. Raises `InputError` for what is no ledger.
    """
    names = {"since": since_s, "live": live, "second": second, "most": most}
    whose, found, (canary, control) = read_ledger(Path(ledger), url, lambda look: _read(look, names))
    seen = [pair for row in found if (pair := _pair(*row)) is not None]
    # Days in the shadow alone say nothing of what the second one would have given.
    pairs = [pair for pair in seen if pair.is_open] or seen
    quality = _difference(pairs, lambda pair: pair.score, 0, confidence)
    usd = _difference(pairs, lambda pair: pair.usd, 1, confidence)
    usd_live = _value(pairs, lambda pair: pair.usd, 1, lambda pair: pair.live)
    changed = [pair.live != pair.second for pair in pairs]
    has_chance = [pair.chance.get(pair.second, 0.0) > 0.0 for pair in pairs]
    return Comparison(
        live=live,
        second=second,
        requests=len(pairs),
        scored=sum(pair.score is not None for pair in pairs),
        changed=float(np.mean(changed)) if pairs else math.nan,
        support=float(np.mean(has_chance)) if pairs else math.nan,
        quality=quality,
        usd=usd,
        # Weights know no range: of few requests the estimate may lie below what a cost can be.
        usd_live=None if usd_live is None else max(usd_live, 0.0),
        canary=canary,
        control=control,
        failures=failure_growth(canary, control, confidence),
        confidence=confidence,
        whose=whose,
    )


def objections(found: Comparison, settings: RolloutSettings) -> list[str]:
    """Return what speaks against the second deployment, as sentences; none where nothing does."""
    wants_scores = settings.max_quality_loss < 1.0
    number, what = (found.scored, "with feedback ") if wants_scores else (found.requests, "")
    if number < settings.min_requests:
        return [f"{number} requests {what}were decided by both, of {settings.min_requests} needed"]
    said = []
    if found.support < 0.99:
        said.append(
            f"on {1 - found.support:.0%} of the requests the second deployment's choice had no chance to be "
            "asked; raise rollout.share, or routing.explore_share"
        )
    if wants_scores and (found.quality is None or found.quality.low < -settings.max_quality_loss):
        said.append(
            f"its loss of feedback may be {_shown(found.quality)}, of {settings.max_quality_loss:g} allowed"
        )
    most_usd = (found.usd_live or 0.0) * settings.max_cost_growth
    if found.usd is not None and found.usd.high > most_usd + 1e-15:
        said.append(
            f"its mean cost may grow by {found.usd.high:.3g} usd a request, of {most_usd:.3g} allowed "
            f"({settings.max_cost_growth:.0%} of {found.usd_live or 0.0:.3g})"
        )
    if found.failures is not None and found.failures.high > settings.max_failure_growth:
        said.append(
            f"its share of failed requests may grow by {found.failures.high:.1%}, of "
            f"{settings.max_failure_growth:.1%} allowed ({found.canary.failures} of {found.canary.requests} "
            f"failed, and {found.control.failures} of {found.control.requests} before)"
        )
    return said


def failure_growth(canary: Served, control: Served, confidence: float) -> Bounds | None:
    """Return the difference of two shares by Newcombe's hybrid of Wilson's intervals; None without both."""
    if not canary.requests or not control.requests:
        return None
    shares = [side.failures / side.requests for side in (canary, control)]
    (low, high), (low_0, high_0) = (_wilson(side, confidence) for side in (canary, control))
    mean = shares[0] - shares[1]
    return Bounds(
        mean=mean,
        low=mean - math.hypot(shares[0] - low, high_0 - shares[1]),
        high=mean + math.hypot(high - shares[0], shares[1] - low_0),
    )


def _wilson(side: Served, confidence: float) -> tuple[float, float]:
    z, n = NormalDist().inv_cdf(confidence), side.requests
    share = side.failures / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _read(look: Look, names: Mapping[str, Any]) -> tuple[Whose, list[tuple[Any, ...]], tuple[Served, Served]]:
    """Return whose rows these are, one for each request that both decided, and what either side served."""
    pairs = look.tuples(_PAIRS, dict(names))
    ended = [
        look.tuples(_ENDED, {"since": names["since"], "branch": branch, "fingerprint": fingerprint})[0]
        for branch, fingerprint in (("canary", names["second"]), ("live", names["live"]))
    ]
    canary, control = (Served(requests=count, failures=failures) for count, failures in ended)
    return look.whose, pairs, (canary, control)


def _pair(
    branch: str,
    unit: str,
    chosen: str,
    own: str,
    reason: str,
    propensity: float,
    scores: str,
    usd: float | None,
    other: str,
    other_scores: str,
    share: float,
    score: float | None,
) -> _Pair | None:
    """Return a request as both sides see it; None where its choices have no known expectation."""
    own_scores, others = known_of(scores), known_of(other_scores)
    each = _each(propensity, len(own_scores), is_drawn=reason == EXPLORED)
    drawn = each * len(own_scores)
    own_share = share if branch == "canary" else 1.0 - share
    chance = {
        name: own_share * _chance(name, own, own_scores, drawn)
        + (1 - own_share) * _chance(name, other, others, drawn)
        for name in {*own_scores, *others}
    }
    live, second = (own, other) if branch == "live" else (other, own)
    expected = {**others, **own_scores} if branch == "live" else {**own_scores, **others}
    if any(name not in expected for name in (chosen, live, second)) or not chance.get(chosen):
        return None
    return _Pair(
        unit=unit,
        chosen=chosen,
        live=live,
        second=second,
        is_open=0.0 < share < 1.0 or each > 0.0,
        chance=chance,
        expected=expected,
        usd=usd,
        score=score,
    )


def _each(propensity: float, size: int, *, is_drawn: bool) -> float:
    """Return the chance that exploring gives to each who may serve; 0 where nothing is drawn."""
    if is_drawn:
        return propensity
    return (1.0 - propensity) / (size - 1) if size > 1 else 0.0


def _chance(name: str, own: str, scores: Scores, drawn: float) -> float:
    each = drawn / len(scores) if name in scores else 0.0
    return each + (1.0 - drawn if name == own else 0.0)


Reward = Callable[[_Pair], float | None]


def _difference(pairs: Sequence[_Pair], reward: Reward, column: int, confidence: float) -> Bounds | None:
    kept = [pair for pair in pairs if reward(pair) is not None]
    if not kept:
        return None
    second_N = _estimates(kept, reward, column, lambda pair: pair.second)
    live_N = _estimates(kept, reward, column, lambda pair: pair.live)
    difference_N = second_N - live_N
    mean = float(difference_N.mean())
    units = np.unique([pair.unit for pair in kept], return_inverse=True)[1]
    sums = np.bincount(units, weights=difference_N - mean)
    if sums.size < 2:
        return None
    error = math.sqrt(float((sums**2).sum()) * sums.size / (sums.size - 1)) / len(kept)
    half = NormalDist().inv_cdf(confidence) * error
    return Bounds(mean=mean, low=mean - half, high=mean + half)


def _value(
    pairs: Sequence[_Pair], reward: Reward, column: int, target: Callable[[_Pair], str]
) -> float | None:
    kept = [pair for pair in pairs if reward(pair) is not None]
    return float(_estimates(kept, reward, column, target).mean()) if kept else None


def _estimates(pairs: Sequence[_Pair], reward: Reward, column: int, target: Callable[[_Pair], str]) -> Floats:
    """Return the doubly robust estimate of what a target would have given, for every pair."""
    values = []
    for pair in pairs:
        wanted, given = target(pair), reward(pair)
        value, modelled = pair.expected[wanted][column], pair.expected[pair.chosen][column]
        assert value is not None
        assert modelled is not None
        assert given is not None
        if wanted == pair.chosen:
            value += (given - modelled) / pair.chance[pair.chosen]
        values.append(value)
    return np.array(values, dtype=np.float64)


def _shown(bounds: Bounds | None) -> str:
    return "anything" if bounds is None else f"{-bounds.low:.3g}"


def as_json(found: Comparison) -> bytes:
    """Return a comparison for the ledger."""
    return msgspec.json.encode(found)
