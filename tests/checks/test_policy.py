"""For every promise of a policy there is a policy that breaks it, and the check says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.checks.broken_policies import CoinPolicy, GoodPolicy, altered, broken
from turnout.checks import check_policy, run
from turnout.checks.configured import CONFIGURED_CHECKS
from turnout.core.contracts import Policy, State
from turnout.core.scoring import score


def learns(self: Any, estimate: Any, budget: Any, rng: Any) -> Any:
    self.calls = getattr(self, "calls", 0) + 1
    return GoodPolicy.decide(self, estimate, budget, rng)


def spoils(self: Any, estimate: Any, budget: Any, rng: Any) -> Any:
    made = GoodPolicy.decide(self, estimate, budget, rng)
    estimate.quality_QM[:] = np.round(estimate.quality_QM, 1)
    return made


def restore_rest(self: Any, state: State) -> None:
    self.calls = int(state.values["calls"]) + 1  # type: ignore[call-overload]


def shaken(self: Any, estimate: Any, budget: Any) -> Any:
    return estimate.quality_QM + np.random.default_rng().normal(0, 0.5, estimate.quality_QM.shape)


def by_position(self: Any, estimate: Any, budget: Any) -> Any:
    return np.broadcast_to(-np.arange(len(estimate.names)), estimate.quality_QM.shape).astype(float)


def by_batch(self: Any, estimate: Any, budget: Any) -> Any:
    return score(estimate.quality_QM - estimate.quality_QM.mean(axis=0), estimate.cost_usd_QM, budget.price)


def rounded_by_position(self: Any, estimate: Any, budget: Any) -> Any:
    scored = score(estimate.quality_QM, estimate.cost_usd_QM, budget.price)
    is_flat_Q = np.ptp(estimate.quality_QM, axis=1) == 0
    return np.where(is_flat_Q[:, None], by_position(self, estimate, budget), scored)


def wants_the_dearest(self: Any, estimate: Any, budget: Any) -> Any:
    return estimate.cost_usd_QM * budget.price + estimate.quality_QM


def likes_unknown_quality(self: Any, estimate: Any, budget: Any) -> Any:
    quality_QM = np.nan_to_num(estimate.quality_QM, nan=1.0)
    return score(quality_QM, estimate.cost_usd_QM, budget.price)


def takes_unknown_for_free(self: Any, estimate: Any, budget: Any) -> Any:
    return score(estimate.quality_QM, np.nan_to_num(estimate.cost_usd_QM), budget.price)


def worst_quality(self: Any, estimate: Any, budget: Any) -> Any:
    return 1 - estimate.quality_QM


def flip(estimate: Any, made: Any) -> Any:
    return made.ranked_QM[:, ::-1]


def first_twice(estimate: Any, made: Any) -> Any:
    ranked_QM = made.ranked_QM.copy()
    ranked_QM[:, 1] = ranked_QM[:, 0]
    return ranked_QM


def with_hole(estimate: Any, made: Any) -> Any:
    ranked_QM = made.ranked_QM.copy()
    ranked_QM[:, 1] = -1
    return ranked_QM


def forget_nobody(self: Any, estimate: Any, budget: Any) -> Any:
    mask_QM = estimate.allowed_QM.copy()
    mask_QM[~mask_QM.any(axis=1)] = True
    return mask_QM


def crash_on_nothing(self: Any, estimate: Any, budget: Any) -> Any:
    estimate.quality_QM.max()
    return estimate.quality_QM


BREAKS: dict[str, list[Callable[[], Policy]]] = {
    "a_decision_is_a_decision": [lambda: broken(decide=lambda self, estimate, budget, rng: [0])],
    "a_decision_for_every_query": [
        lambda: altered(reason_Q=lambda estimate, made: ("",) * len(made)),
        lambda: altered(candidates=lambda estimate, made: made.candidates[::-1]),
    ],
    "an_empty_batch_is_decided": [lambda: broken(score=crash_on_nothing)],
    "deciding_changes_nothing": [
        lambda: broken(decide=learns, calls=0, state=lambda self: State(values={"calls": self.calls})),
        lambda: broken(decide=spoils),
    ],
    "the_same_rng_gives_the_same_result": [lambda: broken(score=shaken)],
    "propensities_are_probabilities": [
        lambda: altered(propensity_Q=lambda estimate, made: np.zeros(len(made)))
    ],
    "expectations_are_the_estimates": [
        lambda: altered(quality_Q=lambda estimate, made: np.full(len(made), 0.5)),
        lambda: altered(cost_usd_Q=lambda estimate, made: np.zeros(len(made))),
    ],
    "the_ranking_starts_with_the_choice": [
        lambda: altered(ranked_QM=flip),
        lambda: altered(ranked_QM=first_twice),
        lambda: altered(ranked_QM=with_hole),
    ],
    "its_state_survives_a_round_trip": [
        lambda: broken(calls=0, state=lambda self: State(values={"calls": self.calls}), restore=restore_rest)
    ],
    "masks_are_obeyed": [
        lambda: broken(mask=lambda self, estimate, budget: np.ones_like(estimate.allowed_QM))
    ],
    "nobody_allowed_gives_nobody": [lambda: broken(mask=forget_nobody)],
    "hard_caps_are_obeyed": [lambda: broken(mask=lambda self, estimate, budget: estimate.allowed_QM)],
    "a_dominated_candidate_is_not_chosen": [lambda: broken(score=worst_quality)],
    "the_order_of_candidates_does_not_matter": [lambda: broken(score=by_position)],
    "ties_do_not_depend_on_order": [lambda: broken(score=rounded_by_position)],
    "a_batch_equals_one_by_one": [lambda: broken(score=by_batch)],
    "cost_never_rises_with_the_price": [lambda: broken(score=wants_the_dearest)],
    "an_unknown_quality_is_not_chosen": [lambda: broken(score=likes_unknown_quality)],
    "an_unknown_cost_is_not_free": [lambda: broken(score=takes_unknown_for_free)],
    "a_choice_without_chance_has_propensity_one": [
        lambda: altered(propensity_Q=lambda estimate, made: np.full(len(made), 0.5))
    ],
    "frequencies_match_propensities": [lambda: broken(CoinPolicy, stated=0.5)],
}

ELSEWHERE = {"saving_and_loading_changes_nothing"}
"""Checks that need a registered class; `test_configured` breaks them."""

DETERMINISTIC_ONLY = {
    "a_dominated_candidate_is_not_chosen",
    "the_order_of_candidates_does_not_matter",
    "ties_do_not_depend_on_order",
    "a_batch_equals_one_by_one",
    "cost_never_rises_with_the_price",
}


def outcomes(policy: Policy) -> dict[str, str]:
    return {result.name: result.outcome for result in run(check_policy(policy)).results}


def test_a_good_policy_passes() -> None:
    found = outcomes(GoodPolicy())
    assert {name for name, outcome in found.items() if outcome == "failed"} == set()
    skipped = {name for name, outcome in found.items() if outcome == "skipped"}
    assert skipped == {"frequencies_match_propensities", *ELSEWHERE}


def test_an_honest_coin_passes_and_skips_the_promises_without_chance() -> None:
    found = outcomes(CoinPolicy())
    assert {name for name, outcome in found.items() if outcome == "failed"} == {
        "an_unknown_quality_is_not_chosen",
        "an_unknown_cost_is_not_free",
    }
    skipped = {name for name, outcome in found.items() if outcome == "skipped"}
    assert skipped == DETERMINISTIC_ONLY | ELSEWHERE


@pytest.mark.parametrize(
    ("name", "build"), [(name, build) for name, builds in BREAKS.items() for build in builds]
)
def test_a_broken_policy_is_caught(name: str, build: Callable[[], Policy]) -> None:
    report = run(check for check in check_policy(build()) if check.name == name)
    assert [result.outcome for result in report.results] == ["failed"], str(report)


def test_every_policy_check_is_broken_by_somebody() -> None:
    shared = {check.__name__ for check in CONFIGURED_CHECKS}
    assert set(outcomes(GoodPolicy())) - shared == set(BREAKS) | ELSEWHERE
