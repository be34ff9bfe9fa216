"""This module lists the promises of a policy, and checks the ones about what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from turnout.checks import policy_chance, policy_choice
from turnout.checks.compare import ARRAYS, frozen_copy, require_same_state
from turnout.checks.configured import (
    CONFIGURED_CHECKS,
    require_artifact_round_trip,
    require_state_round_trip,
)
from turnout.checks.deciding import BUDGETS, decide, decide_at, require_same_choices
from turnout.checks.fixtures import CANDIDATES, small_estimate
from turnout.checks.report import Check, bind, require
from turnout.core.contracts import Configured, Policy
from turnout.core.decision import NONE, Decisions
from turnout.core.rng import make_rng


def check_policy(policy: Policy) -> Iterator[Check]:
    """Yield the checks of a policy.

    Example
    -------
    >>> from turnout.checks import check_policy, run
    >>> from turnout.policies import Best
    >>> run(check_policy(Best())).is_clean
    True
    """
    return bind(
        policy,
        (*CONFIGURED_CHECKS, *POLICY_CHECKS),
        kind=Policy,
        ground=(a_decision_is_a_decision,),
    )


def a_decision_is_a_decision(policy: Policy) -> None:
    """`decide` returns `Decisions`."""
    for budget in BUDGETS:
        found: object = decide_at(policy, small_estimate(), budget)
        require(
            isinstance(found, Decisions),
            policy,
            "decide returned no decisions",
            allowed="turnout.core.decision.Decisions",
            got=type(found).__name__,
            do="build them with `decide_by_score`",
        )


def a_decision_for_every_query(policy: Policy) -> None:
    """One choice per query, over the candidates of the estimate, with the price that was in force."""
    estimate = small_estimate()
    for budget in BUDGETS:
        decisions = decide_at(policy, estimate, budget)
        require(len(decisions) == 40, policy, "number of decisions", allowed=40, got=len(decisions))
        require(decisions.candidates == CANDIDATES, policy, "the candidates of its decisions changed")
        require(all(decisions.reason_Q), policy, "a decision without a reason", allowed="one phrase a query")


def an_empty_batch_is_decided(policy: Policy) -> None:
    """No queries give no decisions."""
    empty = small_estimate().rows(slice(0, 0))
    for budget in BUDGETS:
        require(len(decide_at(policy, empty, budget)) == 0, policy, "no queries gave a decision")


def deciding_changes_nothing(policy: Policy) -> None:
    """Neither the policy nor the estimate it is given."""
    estimate, pristine = small_estimate(), small_estimate()
    before = frozen_copy(policy.state())
    for budget in BUDGETS:
        decide_at(policy, estimate, budget)
    require_same_state(policy, "deciding learned something", before, policy.state())
    for name in ARRAYS:
        is_same = np.array_equal(getattr(estimate, name), getattr(pristine, name), equal_nan=True)
        require(is_same, policy, f"deciding changed {name} of the estimate")


def the_same_rng_gives_the_same_result(policy: Policy) -> None:
    """Two generators of one seed give the same decisions, propensities included."""
    estimate = small_estimate()
    for budget in BUDGETS:
        first, second = (decide(policy, estimate, budget, make_rng(3, "same")) for _ in range(2))
        require_same_choices(policy, "two runs of one seed differ", first, second)


def propensities_are_probabilities(policy: Policy) -> None:
    """In (0, 1], and 1 wherever another generator would have chosen the same in any case."""
    estimate = small_estimate()
    for budget in BUDGETS:
        decisions = decide_at(policy, estimate, budget)
        propensity_Q = decisions.propensity_Q
        is_right = ((propensity_Q > 0) & (propensity_Q <= 1)).all()
        require(is_right, policy, "a propensity", allowed="(0, 1]", got=propensity_Q)


def expectations_are_the_estimates(policy: Policy) -> None:
    """`quality_Q` and `cost_usd_Q` are the estimate's values of the choice."""
    estimate = small_estimate()
    decisions = decide_at(policy, estimate, BUDGETS[1])
    rows = np.arange(len(decisions))
    for name, array_QM in (("quality_Q", estimate.quality_QM), ("cost_usd_Q", estimate.cost_usd_QM)):
        expected = np.where(decisions.choice_Q == NONE, np.nan, array_QM[rows, decisions.choice_Q])
        is_same = np.array_equal(getattr(decisions, name), expected, equal_nan=True)
        require(is_same, policy, f"{name} is not the estimate of the choice")


def the_ranking_starts_with_the_choice(policy: Policy) -> None:
    """`ranked_QM` holds the choice, then other allowed candidates, each once, then -1 to the end."""
    estimate = small_estimate()
    estimate = estimate.restrict(policy_choice.some_mask(estimate))
    for budget in BUDGETS:
        decisions = decide_at(policy, estimate, budget)
        for row in range(len(decisions)):
            _require_ranking(policy, decisions, row, estimate.allowed_QM[row])


def its_state_survives_a_round_trip(policy: Policy) -> None:
    """What `state` returns is enough for `restore` to decide the same."""
    if not policy.is_fitted:
        return
    require_state_round_trip(policy, lambda thing: _require_same(policy, thing))


def saving_and_loading_changes_nothing(policy: Policy) -> None:
    """The loaded artifact decides the same."""
    require_artifact_round_trip(policy, lambda thing: _require_same(policy, thing))


def _require_ranking(policy: Policy, decisions: Decisions, row: int, allowed_M: np.ndarray) -> None:
    ranked, choice = decisions.ranked_QM[row].tolist(), int(decisions.choice_Q[row])
    listed = [index for index in ranked if index != NONE]
    starts = ranked[:1] == [choice]
    require(starts, policy, f"the ranking of query {row} does not start with {choice}", got=ranked)
    require(len(set(listed)) == len(listed), policy, f"the ranking of query {row} repeats one", got=ranked)
    require(ranked[: len(listed)] == listed, policy, f"the ranking of query {row} has a hole", got=ranked)
    require(
        all(allowed_M[i] for i in listed), policy, f"the ranking of query {row} breaks the mask", got=ranked
    )


def _require_same(policy: Policy, thing: Configured) -> None:
    require(isinstance(thing, Policy), policy, "what came back is no policy", got=type(thing).__name__)
    if isinstance(thing, Policy):
        for budget in BUDGETS:
            before, after = (decide_at(p, small_estimate(), budget) for p in (policy, thing))
            require_same_choices(policy, "the decisions changed on the way", before, after)


POLICY_CHECKS: tuple[Callable[[Policy], None], ...] = (
    a_decision_for_every_query,
    an_empty_batch_is_decided,
    deciding_changes_nothing,
    the_same_rng_gives_the_same_result,
    propensities_are_probabilities,
    expectations_are_the_estimates,
    the_ranking_starts_with_the_choice,
    its_state_survives_a_round_trip,
    saving_and_loading_changes_nothing,
    *policy_choice.CHECKS,
    *policy_chance.CHECKS,
)
"""The promises of every policy."""
