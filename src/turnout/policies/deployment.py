"""This module holds what is deployed: a router, a policy, a calibrated dial and a guard, in one artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, final

import numpy as np

from turnout.core.asking import estimate_of
from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, Policy, Router, State
from turnout.core.decision import Decisions
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.scoring import score
from turnout.core.validation import check_kind
from turnout.policies.arrivals import Arrivals, grown, joined, outcomes_of, require_pair
from turnout.policies.choose import decide_by_score
from turnout.policies.fingerprint import fingerprint_of
from turnout.policies.frontier import Frontier
from turnout.policies.guard import Guard, Verdict
from turnout.policies.masks import feasible, input_limits
from turnout.policies.pairs import Pairs, singles_of
from turnout.policies.plan import Plan, make_plan
from turnout.policies.support import Support, unpacked

_NO_CAPS = Budget()
_at_price = lru_cache(maxsize=4096)(Budget.at_price)
_MAX_PLANS = 1024
_NEWCOMER = 0.9
"""Confidence at which a newcomer's probe rows must speak for it, at least."""
ASIDE = "guard: not shown to beat the best single model"


@final
class Deployment(Configured):
    """Text in, decision out: what `turnout fit` writes and the gateway serves.

    A decision masks by capability and context first, then takes the price for the goal from the
    frontier, then lets the router decide if the guard allows it for that goal; else the single model
    that serves the goal best does, and where that one may not serve, the next by `fallback`'s means.

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
        self.arrivals: Arrivals | None = None
        """Candidates that joined later, `add_candidate`; None where there is none."""
        self.support: Support | None = None
        """Where each candidate may be chosen; None for everywhere."""
        self.learned_from: Ints = np.zeros(0, np.int64)
        """Marks of the texts that it learned from (`turnout.training.memory`), sorted."""
        self._plans: dict[Goal, Plan] = {}
        self._open_by: dict[Goal, Bools] = {}

    def config(self) -> dict[str, object]:
        """Return the parts with settings of their own; frontier, guard and certificate are state."""
        return {name: getattr(self, name) for name in ("router", "fallback", "policy", "goal")}

    def state(self) -> State:
        """Return the measured frontier and guard and the certificate."""
        arrays: dict[str, np.ndarray] = {"learned_from": self.learned_from}
        values: dict[str, object] = {"certificate": self.certificate, "guard_confidence": None}
        if self.frontier is not None:
            arrays |= {
                "frontier.price_P": self.frontier.price_P,
                "frontier.options": self.frontier.options.moments_SKM,
                "frontier.single_pairs": self.frontier.singles.moments_SKM,
                "frontier.quality_M": self.frontier.quality_M,
                "frontier.usd_M": self.frontier.usd_M,
                "frontier.best": np.array([self.frontier.best]),
                "frontier.num_late": np.array([self.frontier.num_late]),
            }
        if self.guard is not None:
            arrays["guard.options"] = self.guard.options.moments_SKM
            values["guard_confidence"] = self.guard.confidence
        if self.arrivals is not None:
            arrays["arrivals"] = self.arrivals.pairs.moments_SKM
            values["arrivals_confidence"] = self.arrivals.confidence
        if self.support is None:
            return State(arrays=arrays, values=values)
        packed, told, parts = self.support.pack()
        return State(arrays=arrays | packed, values=values | told, parts=parts)

    def restore(self, state: State) -> None:
        """Take over frontier, guard and certificate."""
        certificate, confidence = state.values["certificate"], state.values["guard_confidence"]
        if not isinstance(certificate, Mapping):
            raise InputError(
                sentence("Deployment.restore: certificate", allowed="a mapping", got=certificate)
            )
        self.certificate = dict(certificate)
        self.support = unpacked(state.arrays, state.values, state.parts)
        # Older artifacts do not know.
        self.learned_from = state.arrays.get("learned_from", self.learned_from)
        if "frontier.price_P" in state.arrays:
            self.frontier = Frontier(
                price_P=state.arrays["frontier.price_P"],
                options=Pairs(moments_SKM=state.arrays["frontier.options"]),
                singles=_singles_from(state),
                quality_M=state.arrays["frontier.quality_M"],
                usd_M=state.arrays["frontier.usd_M"],
                best=int(state.arrays["frontier.best"][0]),
                num_late=int(state.arrays.get("frontier.num_late", np.zeros(1))[0]),
            )
        if isinstance(confidence, float):
            options = Pairs(moments_SKM=state.arrays["guard.options"])
            self.guard = Guard(options=options, confidence=confidence)
        if "arrivals" in state.arrays:
            sure = state.values["arrivals_confidence"]
            assert isinstance(sure, float)
            self.arrivals = Arrivals(pairs=Pairs(moments_SKM=state.arrays["arrivals"]), confidence=sure)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool, in the router's order."""
        return self.router.estimate([Query(id="pool", text="")]).candidates

    @cached_property
    def _limits_M(self) -> Floats:
        return input_limits(self.candidates)

    @cached_property
    def _least_price(self) -> float:
        return 0.0 if self.frontier is None else self.frontier.least_price

    @cached_property
    def _rng(self) -> np.random.Generator:
        return make_rng(0, "deployment")

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the configuration and everything that was learned."""
        return fingerprint_of(self)

    def add_candidate(self, candidate: Candidate, probe: OutcomeTable) -> Deployment:
        """Return a deployment of the same calibration with one candidate more, learned from its probe rows.

        Everybody estimates the newcomer, and it can be asked by name. It is chosen for a goal only where the
        probe shows that it serves that goal better than the single model (`Arrivals`): for that, `probe` has
        to hold the single model's outcomes on the same queries, 30 of them at least. What is promised stays
        as it was calibrated; a refit lets the newcomer in for all.

        Raises `InputError` for a candidate that is known already, for a probe of a single query, or where a
        router takes no newcomer; `TableError` for a probe that holds no quality of it.
        """
        if self.frontier is not None:
            require_pair(candidate, probe)
        router, fallback = (grown(one, candidate, probe) for one in (self.router, self.fallback))
        names = [other.name for other in self.candidates]
        certificate: dict[str, Any] = {**self.certificate}
        added = Deployment(router=router, fallback=fallback, policy=self.policy, goal=self.goal)
        added.learned_from, added.support = self.learned_from, self.support
        if self.frontier is None:
            added.certificate = certificate
            return added
        quality_MQ, usd_MQ = outcomes_of(probe, [*names, candidate.name])
        added.frontier, added.guard, added.arrivals = joined(
            self.frontier,
            self.guard,
            self.arrivals,
            quality_MQ=quality_MQ,
            usd_MQ=usd_MQ,
            # What some tens of probe rows say of a newcomer was not shrunk toward anything.
            confidence=_NEWCOMER if self.guard is None else max(_NEWCOMER, self.guard.confidence),
        )
        told = {"name": candidate.name, "probes": int(np.isfinite(quality_MQ[-1]).sum())}
        before = certificate.get("newcomers", [])
        added.certificate = {**certificate, "newcomers": [*before, told]}
        return added

    def verdicts(self, goal: Goal | None = None) -> dict[str, Verdict]:
        """Return what is shown of each newcomer for a goal (or the deployment's own): may it be chosen?"""
        if self.arrivals is None or self.frontier is None:
            return {}
        wanted, plan = self.goal if goal is None else goal, self.plan(goal)
        num_old = len(self.candidates) - self.arrivals.num
        single = plan.single if plan.single is not None and plan.single < num_old else self.frontier.best
        found = self.arrivals.judge(wanted, price=plan.price, single=single, frontier=self.frontier)
        newcomers = self.candidates[num_old:]
        return {one.name: verdict for one, verdict in zip(newcomers, found, strict=True)}

    def _may(self, goal: Goal | None, plan: Plan) -> Bools:
        """Return which candidates may be chosen, shape (M,): all but newcomers of whom nothing is shown."""
        wanted = self.goal if goal is None else goal
        known = self._open_by.get(wanted)
        if known is None:
            shown = self.verdicts(goal)
            known = np.array([one.name not in shown or shown[one.name].is_open for one in self.candidates])
            if plan.single is not None:
                known[plan.single] = True
            if len(self._open_by) < _MAX_PLANS:
                self._open_by[wanted] = known
        return known

    def plan(self, goal: Goal | None = None) -> Plan:
        """Return how `goal` (or the deployment's own) is served and what is promised about it.

        Raises `InputError` for a goal that needs calibration, or costs, when there were none.
        """
        wanted = self.goal if goal is None else goal
        check_kind("Deployment: goal", wanted, Goal, do="write for example Goal(quality_floor=0.95)")
        known = self._plans.get(wanted)
        if known is None:
            known = self._make_plan(wanted)
            if len(self._plans) < _MAX_PLANS:
                self._plans[wanted] = known
        return known

    def decide(
        self,
        queries: Sequence[Query],
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        price: float | None = None,
        allowed_QM: Bools | None = None,
        rng: np.random.Generator | None = None,
    ) -> Decisions:
        """Return one decision per query; see `consider`."""
        found = self.consider(queries, goal=goal, budget=budget, price=price, allowed_QM=allowed_QM, rng=rng)
        return found[0]

    def consider(
        self,
        queries: Sequence[Query],
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        price: float | None = None,
        allowed_QM: Bools | None = None,
        extra_usd_QM: Floats | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decisions, Estimate]:
        """Return one decision per query, and the masked estimate that it was made from.

        `goal` replaces the deployment's own dial; `budget` adds hard caps (its price is not read);
        `price` replaces the calibrated one, as a `Pacer` does to keep a spend cap.
        `allowed_QM` (broadcast from (M,)) adds a mask in the order of `candidates`, for health and
        access. `extra_usd_QM` (broadcast from (M,)) is added to the expected costs, for what only the
        moment knows, such as who would read a conversation again. `rng` drives stochastic policies;
        without one a generator of the deployment's own, of a fixed seed, runs on.
        """
        _check_queries(queries)
        if budget is not None:
            check_kind(
                "Deployment: budget", budget, Budget, do="write for example Budget(usd_per_query=0.01)"
            )
        plan = self.plan(goal)
        at = plan.price if price is None else price
        if (self.goal if goal is None else goal).asks_for_money:
            at = max(at, self._least_price)  # a pacer's 0 too: who has no known cost stays last
        caps = _at_price(_NO_CAPS if budget is None else budget, at)
        estimate = estimate_of(self._estimator(plan), queries)
        if extra_usd_QM is not None:
            estimate = replace(estimate, cost_usd_QM=estimate.cost_usd_QM + extra_usd_QM)
        mask_QM = feasible(queries, estimate.candidates, limits_M=self._limits_M)
        if allowed_QM is not None:
            mask_QM = mask_QM & allowed_QM
        if self.arrivals is not None:
            mask_QM = mask_QM & self._may(goal, plan)
        if self.support is not None:
            mask_QM = self._supported(queries, mask_QM)
        if np.count_nonzero(mask_QM) < mask_QM.size:
            estimate = estimate.restrict(mask_QM)
        if plan.is_open:
            decisions = self.policy.decide(estimate, caps, self._rng if rng is None else rng)
        else:
            decisions = _step_aside(estimate, caps, plan.single)
        return decisions.signed(self.fingerprint), estimate

    def _supported(self, queries: Sequence[Query], mask_QM: Bools) -> Bools:
        """Return the mask without candidates that met nothing like the query, unless nobody else is left."""
        assert self.support is not None
        both_QM: Bools = mask_QM & self.support.allowed(queries, mask_QM.shape[1])
        return np.where(both_QM.any(axis=1, keepdims=True), both_QM, mask_QM)

    def estimate(self, queries: Sequence[Query], *, goal: Goal | None = None) -> Estimate:
        """Return the estimate that decides for `goal`: the router's, or the fallback's behind the guard."""
        return estimate_of(self._estimator(self.plan(goal)), queries)

    def _estimator(self, plan: Plan) -> Router:
        return self.router if plan.is_open else self.fallback

    def _make_plan(self, goal: Goal) -> Plan:
        if self.frontier is not None:
            names = tuple(candidate.name for candidate in self.candidates)
            return make_plan(goal, self.frontier, self.guard, names)
        if goal.fixed_price is None:
            raise InputError(
                sentence(
                    f"Deployment: the goal of {goal.describe()} needs a calibrated frontier",
                    do="fit with a calibration split, or state a price of quality",
                )
            )
        nan = float("nan")
        return Plan(
            price=goal.fixed_price,
            is_open=True,
            single=None,
            is_kept=True,
            quality=nan,
            usd_per_1k=nan,
            verdict=None,
            text="nothing was calibrated and nothing is promised",
        )


def _singles_from(state: State) -> Pairs:
    known = state.arrays.get("frontier.single_pairs")
    if known is not None:
        return Pairs(moments_SKM=known)
    # Older artifacts hold every single model against every other.
    every = Pairs(moments_SKM=state.arrays["frontier.singles"])
    return singles_of(every, int(state.arrays["frontier.best"][0]))


def _check_queries(queries: Sequence[object]) -> None:
    """Raise `InputError` for texts in place of queries, and for one query in place of a list of them."""
    wrong = (
        [queries] if isinstance(queries, str | Query) else [q for q in queries if not isinstance(q, Query)]
    )
    if wrong:
        raise InputError(
            sentence(
                "Deployment: queries",
                allowed="a sequence of Query",
                got=wrong[0],
                do="write [Query(id='1', text='...')]",
            )
        )


def _step_aside(estimate: Estimate, budget: Budget, single: int | None) -> Decisions:
    """Choose the single model that serves the goal; where it may not serve, the next best for the price."""
    score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, budget.price)
    if single is not None:
        score_QM[:, single] = np.inf
    return decide_by_score(estimate, score_QM, budget, reason=ASIDE)
