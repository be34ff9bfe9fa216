"""This module holds what is deployed: a router, a policy, a calibrated dial and a guard, in one artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, ClassVar, final

import numpy as np

from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, Policy, Router, State
from turnout.core.decision import Decisions
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.policies.frontier import Frontier, Promise
from turnout.policies.guard import Guard
from turnout.policies.masks import feasible, input_limits

_NO_CAPS = Budget()
_at_price = lru_cache(maxsize=4096)(Budget.at_price)
ASIDE = "guard: not shown to beat the best single model"


@final
class Deployment(Configured):
    """Text in, decision out: what `turnout fit` writes and the gateway serves.

    A decision masks by capability and context first, then takes the price for the goal from the
    frontier, then lets the router decide if the guard allows it at that price; else the same policy
    decides from the constant estimates of `fallback`, which is the best single model for that price.

    Parameters
    ----------
    router:
        A fitted router.
    fallback:
        A fitted router whose estimates do not depend on the query (`best_single`).
    policy:
        How estimates become decisions.
    goal:
        The dial when a request brings none.
    frontier, guard:
        Measured on splits of their own; see `turnout.training`.
    certificate:
        What was done and measured, for people and logs: JSON values only.
    """

    room: ClassVar[str] = "policies"

    def __init__(
        self,
        *,
        router: Router,
        fallback: Router,
        policy: Policy,
        goal: Goal,
        frontier: Frontier | None = None,
        guard: Guard | None = None,
        certificate: Mapping[str, object] | None = None,
    ) -> None:
        router.require_fitted("deploy")
        fallback.require_fitted("deploy")
        self.router = router
        self.fallback = fallback
        self.policy = policy
        self.goal = goal
        self.frontier = frontier
        self.guard = guard
        self.certificate = dict(certificate or {})
        self._promises: dict[Goal, Promise] = {}

    def config(self) -> dict[str, object]:
        """Return the parts with settings of their own; frontier, guard and certificate are state."""
        return {name: getattr(self, name) for name in ("router", "fallback", "policy", "goal")}

    def state(self) -> State:
        """Return the measured frontier and guard and the certificate."""
        arrays: dict[str, np.ndarray] = {}
        values: dict[str, object] = {"certificate": self.certificate, "frontier": None, "guard": None}
        for name in ("frontier", "guard"):
            part = getattr(self, name)
            if part is not None:
                fields = {field: getattr(part, field) for field in part.__dataclass_fields__}
                arrays |= {f"{name}.{key}": x for key, x in fields.items() if isinstance(x, np.ndarray)}
                values[name] = {key: x for key, x in fields.items() if not isinstance(x, np.ndarray)}
        return State(arrays=arrays, values=values)

    def restore(self, state: State) -> None:
        """Take over frontier, guard and certificate."""
        self.certificate = _mapping(state.values["certificate"])
        frontier, guard = state.values["frontier"], state.values["guard"]
        if frontier is not None:
            self.frontier = Frontier(**_mapping(frontier), **_prefixed(state, "frontier."))
        if guard is not None:
            self.guard = Guard(**_mapping(guard), **_prefixed(state, "guard."))

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool, in the router's order."""
        return self.router.estimate([Query(id="pool", text="")]).candidates

    @cached_property
    def _limits_M(self) -> Floats:
        return input_limits(self.candidates)

    @cached_property
    def _rng(self) -> np.random.Generator:
        return make_rng(0, "deployment")

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the configuration and everything that was learned."""
        digest = hashlib.sha256()
        _digest(self, digest)
        return digest.hexdigest()[:16]

    def promise(self, goal: Goal | None = None) -> Promise:
        """Return the price for `goal` (or the deployment's own) and what may be promised about it.

        Raises `InputError` for a goal that needs calibration when there was none.
        """
        wanted = self.goal if goal is None else goal
        known = self._promises.get(wanted)
        if known is None:
            known = self._find_promise(wanted)
            if len(self._promises) < 1024:
                self._promises[wanted] = known
        return known

    def estimate(self, queries: Sequence[Query], price: float) -> Estimate:
        """Return the estimate that decides at `price`: the router's, or the fallback's behind the guard."""
        is_open = self.guard is None or self.guard.is_open(price)
        return (self.router if is_open else self.fallback).estimate(queries)

    def decide(
        self,
        queries: Sequence[Query],
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        allowed_QM: Bools | None = None,
        rng: np.random.Generator | None = None,
    ) -> Decisions:
        """Return one decision per query.

        `goal` replaces the deployment's own dial; `budget` adds hard caps, and its price is used when
        `goal` is None and the budget's price is above 0. `allowed_QM` (broadcast from (M,)) adds a mask
        in the order of `candidates`, for health and access. `rng` drives stochastic
        policies; without one a generator of the deployment's own, of a fixed seed, runs on.
        """
        caps = _NO_CAPS if budget is None else budget
        price = caps.price if goal is None and caps.price > 0 else self.promise(goal).price
        is_open = self.guard is None or self.guard.is_open(price)
        estimate = (self.router if is_open else self.fallback).estimate(queries)
        mask_QM = feasible(queries, estimate.candidates, limits_M=self._limits_M)
        if allowed_QM is not None:
            mask_QM = mask_QM & allowed_QM
        if not mask_QM.all():
            estimate = estimate.restrict(mask_QM)
        generator = self._rng if rng is None else rng
        decisions = self.policy.decide(estimate, _at_price(caps, price), generator)
        return decisions.signed(self.fingerprint, reason=None if is_open else ASIDE)

    def _find_promise(self, goal: Goal) -> Promise:
        if self.frontier is not None:
            return self.frontier.promise(goal)
        if goal.fixed_price is None:
            raise InputError(
                sentence(
                    f"Deployment: the goal of {goal.describe()} needs a calibrated frontier",
                    do="fit with a calibration split, or state a price of quality",
                )
            )
        nan = float("nan")
        return Promise(
            price=goal.fixed_price, is_kept=True, quality=nan, usd_per_1k=nan, text="nothing was calibrated"
        )


def _prefixed(state: State, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): x for key, x in state.arrays.items() if key.startswith(prefix)}


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(sentence("Deployment.restore", allowed="a mapping", got=value))
    return dict(value)


def _digest(thing: Configured, digest: Any) -> None:
    digest.update(type(thing).__qualname__.encode())
    for name, value in sorted(thing.config().items()):
        if isinstance(value, Configured):
            _digest(value, digest)
        else:
            digest.update(f"{name}={value!r}".encode("utf-8", "surrogatepass"))
    state = thing.state()
    for name, array in sorted(state.arrays.items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    digest.update(json.dumps(dict(state.values), sort_keys=True, default=str).encode())
    for _, part in sorted(state.parts.items()):
        _digest(part, digest)
