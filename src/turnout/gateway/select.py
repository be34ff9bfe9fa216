"""This module turns a request and its headers into a decision: pure, synchronous, no bytes, no sockets."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import final

import msgspec
import numpy as np

from turnout.core.budget import Goal
from turnout.core.candidate import Candidate
from turnout.core.decision import NONE
from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats
from turnout.core.query import Query
from turnout.gateway.caps import check_cap
from turnout.gateway.errors import ApiError, unknown_model
from turnout.gateway.explore import explored
from turnout.gateway.number import term_of
from turnout.gateway.pacers import Pacers
from turnout.gateway.refused import infeasible, no_deployment, not_allowed
from turnout.gateway.told import HEADERS as TOLD
from turnout.gateway.wire import ChatRequest
from turnout.policies.deployment import Deployment
from turnout.policies.masks import obstacles
from turnout.policies.pacing import Pacer

DIALS = {
    b"x-turnout-quality-floor": "quality_floor",
    b"x-turnout-usd-per-1k": "usd_per_1k",
    b"x-turnout-usd-per-quality": "usd_per_quality",
}
"""Request headers that set the dial, and the term of `Goal` that each one sets."""

PREFIX = b"x-turnout-"
"""How the gateway's own headers begin; a client may send none but the dials, a task and tags."""

_DIAL_NAMES = tuple(name.decode() for name in DIALS)
_NAMES = [*_DIAL_NAMES, *(name.decode() for name in TOLD)]


def write_scores(estimate: Estimate) -> list[str]:
    """Return what everybody who may serve is expected to give and to cost, as JSON, for each request."""
    names, encode = estimate.names, msgspec.json.encode
    rows = np.stack([estimate.quality_QM, estimate.cost_usd_QM], axis=-1).tolist()
    # The encoder writes NaN, which is what unknown is, as null.
    if estimate.allowed_QM.all():
        form = _form_of(names)
        return [encode(form(*row)).decode() for row in rows]
    found = []
    for row, allowed in zip(rows, estimate.allowed_QM.tolist(), strict=True):
        scored = zip(names, row, allowed, strict=True)
        found.append(encode({name: pair for name, pair, may in scored if may}).decode())
    return found


@lru_cache(maxsize=64)
def _form_of(names: tuple[str, ...]) -> Callable[..., object]:
    """Return what makes an object with these names, which is written in two thirds of a dictionary's time."""
    fields = {f"candidate_{number}": name for number, name in enumerate(names)}
    try:
        return msgspec.defstruct(
            "Scores", [(field, list[float]) for field in fields], rename=fields, gc=False
        )
    except ValueError:  # a name that JSON has to mask
        return lambda *pairs: dict(zip(names, pairs, strict=True))


@final
class Selection(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Who shall be asked, in order, and what is known of why; NaN stands for unknown."""

    ranked: tuple[Candidate, ...]
    reason: str
    propensity: float
    price: float
    expected_quality: float
    expected_cost_usd: float
    goal: str | None
    fingerprint: str | None
    """The deployment's; None where there is none."""
    decision_s: float
    pacer: Pacer | None = None
    own: Candidate | None = None
    """Whom the router would have chosen, where chance chose instead."""
    estimate: Estimate | None = None
    """What the decision was made from; None where the client named the candidate."""
    row: int = 0
    """The row of this request in the estimate."""
    scores: str | None = None
    """This row of the estimate, as `write_scores` writes it for all that were decided together."""


@final
class Selector:
    """Decides requests with one deployment, or with none where every client names its model.

    Parameters
    ----------
    deployment:
        What decides; None where nobody is chosen.
    alias:
        The model name that asks the router.
    goal:
        The dial where a request sets none; None means the deployment's own. Raises `InputError` where the
        deployment cannot serve it.
    rng:
        What a stochastic policy draws from.
    pace:
        Whether the price of a spend cap follows what is really spent.
    allowed_M:
        Who may serve, in the order of the deployment's candidates; None means everybody.
    binds_named:
        Whether that holds for a request that names a candidate, too.
    unrouted:
        Models that are served by name and never chosen.
    fallbacks:
        Who is asked, in order, where a model that a client names does not answer.
    explore_share:
        Share of requests on which chance chooses among those who may serve.
    """

    def __init__(
        self,
        *,
        deployment: Deployment | None,
        alias: str,
        goal: Goal | None,
        rng: np.random.Generator,
        pace: bool = True,
        allowed_M: Bools | None = None,
        binds_named: bool = False,
        unrouted: Mapping[str, Candidate] = MappingProxyType({}),
        fallbacks: Mapping[str, Sequence[str]] = MappingProxyType({}),
        explore_share: float = 0.0,
    ) -> None:
        if deployment is not None:
            deployment.plan(goal)
        self.explore_share = explore_share
        self.deployment = deployment
        self.alias = alias
        self.goal = goal
        self.rng = rng
        self.pacers = None if deployment is None else Pacers(deployment=deployment, is_on=pace)
        self.candidates = () if deployment is None else deployment.candidates
        self.by_name = {candidate.name: candidate for candidate in self.candidates}
        self.unrouted = unrouted
        self.allowed_M = allowed_M
        self.bound = None if allowed_M is None or not binds_named else self.allowed
        bound = self.bound
        known = {name: one for name, one in self.known.items() if bound is None or name in bound}
        self._behind = {
            name: tuple([known[other] for other in others if other in known])
            for name, others in fallbacks.items()
        }

    @property
    def fingerprint(self) -> str | None:
        """What names the deployment; None where there is none."""
        return None if self.deployment is None else self.deployment.fingerprint

    @property
    def known(self) -> Mapping[str, Candidate]:
        """Everybody who may be asked for by name."""
        return ChainMap(self.by_name, dict(self.unrouted))

    @property
    def allowed(self) -> frozenset[str]:
        """Names of the candidates that may serve."""
        if self.allowed_M is None:
            return frozenset(self.by_name)
        return frozenset(name for name, may in zip(self.by_name, self.allowed_M, strict=True) if may)

    def choose(
        self,
        request: ChatRequest,
        query: Query,
        goal: Goal | None,
        whose: str | None = None,
        rng: np.random.Generator | None = None,
        extra_usd_M: Floats | None = None,
    ) -> Selection:
        """Return the selection; raises `ApiError` for an unknown model or where nobody may serve.

        `whose` says in words who set the goal, where it was not a header of the request. `rng` stands in for
        the selector's own, for a choice that is only looked at. `extra_usd_M` is added to the expected costs.
        """
        started_s = time.perf_counter()
        if request.model != self.alias:
            return self._named(request.model, started_s)
        if self.deployment is None:
            raise no_deployment(self.alias, self.unrouted)
        try:
            found = self._consider([query], goal, whose, rng, extra_usd_M, started_s)
        except InputError as error:
            raise self._refused(self.deployment, query, goal, whose, error) from error
        if found[0] is None:
            cause = "the deployment's budget" if self.allowed_M is None else "a rule leaves it out"
            raise infeasible(query, self.deployment, cause)
        return found[0]

    def choose_all(
        self,
        queries: Sequence[Query],
        goal: Goal | None,
        whose: str | None,
        rng: np.random.Generator | None = None,
    ) -> list[Selection] | None:
        """Return the selections of requests that ask the router, decided at once; None where one has none."""
        try:
            found = self._consider(queries, goal, whose, rng, None, time.perf_counter())
        except InputError:
            return None
        known = [selection for selection in found if selection is not None]
        return known if len(known) == len(queries) else None

    def _consider(
        self,
        queries: Sequence[Query],
        goal: Goal | None,
        whose: str | None,
        rng: np.random.Generator | None,
        extra_usd_M: Floats | None,
        started_s: float,
    ) -> list[Selection | None]:
        """Return the selection of each query, None where nobody may serve it; raises `InputError`."""
        deployment, pacers = self.deployment, self.pacers
        if deployment is None or pacers is None:
            raise no_deployment(self.alias, self.unrouted)
        wanted = self.goal if goal is None else goal
        if goal is not None:
            check_cap(deployment, goal, whose or _header_of(goal))
        pacer = pacers.get(wanted)
        decisions, estimate = deployment.consider(
            queries,
            goal=wanted,
            price=None if pacer is None else pacer.price,
            allowed_QM=self.allowed_M,
            extra_usd_QM=extra_usd_M,
            rng=rng or self.rng,
        )
        words = (deployment.goal if wanted is None else wanted).describe()
        decision_s = time.perf_counter() - started_s
        # A choice that is only looked at is not drawn, and a conversation that somebody has read stays there.
        is_drawn = self.explore_share > 0 and rng is None and extra_usd_M is None
        candidates, found, scores = decisions.candidates, list[Selection | None](), write_scores(estimate)
        # As lists, at once: an array gives a number at ten times the price.
        rows = zip(
            decisions.choice_Q.tolist(),
            decisions.ranked_QM.tolist(),
            decisions.propensity_Q.tolist(),
            decisions.reason_Q,
            decisions.quality_Q.tolist(),
            decisions.cost_usd_Q.tolist(),
            strict=True,
        )
        for row, (choice, order, propensity, reason, quality, usd) in enumerate(rows):
            if choice == NONE:
                found.append(None)
                continue
            selection = Selection(
                ranked=tuple([candidates[i] for i in order if i != NONE]) or (candidates[choice],),
                reason=reason,
                propensity=propensity,
                price=decisions.price,
                expected_quality=quality,
                expected_cost_usd=usd,
                goal=words,
                fingerprint=decisions.fingerprint,
                decision_s=decision_s,
                pacer=pacer,
                estimate=estimate,
                row=row,
                scores=scores[row],
            )
            found.append(explored(selection, self.explore_share, self.rng) if is_drawn else selection)
        return found

    def _named(self, model: str, started_s: float) -> Selection:
        candidate = self.by_name.get(model) or self.unrouted.get(model)
        if candidate is None:
            alias = [] if self.deployment is None else [self.alias]
            raise unknown_model(model, [*alias, *self.by_name, *self.unrouted])
        if self.bound is not None and model not in self.bound:
            raise not_allowed(model, self.bound)
        return Selection(
            ranked=(candidate, *self._behind.get(model, ())),
            reason="named",
            propensity=1.0,
            price=math.nan,
            expected_quality=math.nan,
            expected_cost_usd=math.nan,
            goal=None,
            fingerprint=self.fingerprint,
            decision_s=time.perf_counter() - started_s,
        )

    def _serves_without_tags(self, deployment: Deployment, query: Query, goal: Goal | None) -> bool:
        plain = dataclasses.replace(query, tags={})
        try:
            deployment.decide([plain], goal=self.goal if goal is None else goal)
        except InputError:
            return False
        return True

    def _refused(
        self, deployment: Deployment, query: Query, goal: Goal | None, whose: str | None, error: InputError
    ) -> ApiError:
        """Say whose fault it is: nobody may serve, or the goal of the request cannot be served."""
        if query.tags and self._serves_without_tags(deployment, query, goal):
            what = f"a tag of the request cannot be read; {error}; correct it, or leave it out"
            return ApiError(400, what, code="bad_tag", param="x-turnout-tag")
        if goal is None or len(obstacles(query, self.candidates)) == len(self.by_name):
            return infeasible(query, deployment, str(error))
        header = _header_of(goal)
        what = f"the header {header!r}" if whose is None else whose
        return ApiError(400, f"{what} cannot be served; {error}", code="bad_goal", param=header)


def read_goal(headers: Sequence[tuple[bytes, bytes]]) -> Goal | None:
    """Return the dial that the headers set, or None.

    Raises `ApiError` (400) that names the header. A misspelt dial is refused: served without it, a request
    would spend what its client did not allow.
    """
    given = [header for header in headers if header[0].startswith(PREFIX) and header[0] not in TOLD]
    if not given:
        return None
    given.sort()
    for name, _ in given:
        if name not in DIALS:
            raise _unknown_header(name.decode("latin-1"))
    if len(given) > 1:
        names = " and ".join(name.decode() for name, _ in given)
        message = sentence(
            "more than one header sets the dial",
            allowed=f"at most one of {', '.join(_DIAL_NAMES)}, once",
            got=names,
            do="keep one",
        )
        raise ApiError(400, message, code="bad_header", param=given[0][0].decode())
    name, value = given[0]
    return _parse_goal(name.decode(), DIALS[name], value.decode("latin-1"))


def _header_of(goal: Goal) -> str:
    return next((name.decode() for name, term in DIALS.items() if term == goal.dial), "goal")


def _unknown_header(name: str) -> ApiError:
    message = sentence(
        f"the request header {name[:80]!r} is unknown",
        allowed=", ".join(_NAMES),
        do=f"{did_you_mean(name[:80], _NAMES)}; otherwise leave the header out",
    )
    return ApiError(400, message, code="unknown_header", param=name[:80])


def _parse_goal(header: str, term: str, value: str) -> Goal:
    try:
        terms: Mapping[str, float] = {term: term_of(value)}
        return Goal(**terms)
    except InputError as error:
        message = f"the header {header!r} is wrong; {error}; send a number in this range"
        raise ApiError(400, message, code="bad_header", param=header) from error
    except ValueError as error:
        message = sentence(
            f"the header {header!r} is wrong", allowed="a number", got=value, do="send one, such as 0.95"
        )
        raise ApiError(400, message, code="bad_header", param=header) from error
